/**
 * Worker that runs the tokenizer and owns the template process.
 *
 * @module
 */
import { LocalTextCodec } from "./text_codec.ts";
import { errorParts, type TextReply, type TextRequest, type TextWorkerStart } from "./text_protocol.ts";

function serve({ assets, port }: TextWorkerStart): void {
  const send = (reply: TextReply) => port.postMessage(reply);
  let codec: LocalTextCodec;
  try {
    codec = new LocalTextCodec(assets);
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
  send({ kind: "ready", vocabulary: codec.vocabulary, dropsLeadingSpace: codec.dropsLeadingSpace });
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
