/**
 * Worker that runs the tokenizer and owns the template process.
 *
 * @module
 */
import { openModel } from "../model/open_model.ts";
import type { TextAssets } from "../model/model.ts";
import { LocalTextCodec } from "./text_codec.ts";
import { errorParts, type ModelText, type TextReply, type TextRequest, type TextWorkerStart } from "./text_protocol.ts";

function readAssets(source: TextAssets | ModelText): TextAssets {
  if (!("modelPath" in source)) return source;
  using model = openModel(source.modelPath);
  const { chatTemplate = model.text.chatTemplate } = source;
  return { ...model.text, chatTemplate };
}

function serve({ source, port }: TextWorkerStart): void {
  const send = (reply: TextReply) => port.postMessage(reply);
  let codec: LocalTextCodec;
  try {
    codec = new LocalTextCodec(readAssets(source));
  } catch (error) {
    return send({ kind: "start-failed", error: errorParts(error) });
  }
  port.onmessage = async ({ data: request }: MessageEvent<TextRequest>) => {
    const { id } = request;
    try {
      send({ kind: "done", id, result: await answer(codec, request) });
    } catch (error) {
      send({ kind: "failed", id, error: errorParts(error) });
    }
  };
  const { vocabulary, bos, eos, dropsLeadingSpace } = codec;
  send({ kind: "ready", vocabulary, bos, eos, dropsLeadingSpace });
}

async function answer(codec: LocalTextCodec, request: TextRequest): Promise<Int32Array | string | undefined> {
  switch (request.kind) {
    case "encode":
      return await codec.encode(request.text, { parseSpecial: request.parseSpecial });
    case "render-chat":
      return await codec.renderChat(request.messages, request.options);
    case "encode-chat":
      return await codec.encodeChat(request.messages, request.options);
    case "close":
      await codec[Symbol.asyncDispose]();
      return undefined;
    default:
      return request satisfies never;
  }
}

if (import.meta.main) {
  addEventListener("message", (event) => {
    if (event instanceof MessageEvent) serve(event.data);
  }, { once: true });
}
