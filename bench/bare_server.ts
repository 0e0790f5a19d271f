/**
 * The least that `node:http` can be: a handler that answers every request with a short JSON body. The port is the first
 * argument.
 *
 * @module
 */
import { createServer } from "node:http";

const BODY = '{"status":"ok"}';

if (import.meta.main) {
  createServer((_request, response) => {
    response.writeHead(200, { "content-type": "application/json", "content-length": BODY.length });
    response.end(BODY);
  }).listen(Number(Deno.args[0]), "127.0.0.1");
}
