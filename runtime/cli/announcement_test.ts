import { assertEquals } from "@std/assert";
import { announcementLine, readAnnouncement } from "./announcement.ts";

Deno.test("readAnnouncement() reads what announcementLine() writes", () => {
  const told = { url: "http://127.0.0.1:1", name: "a", role: "holder", clusterUrl: "http://127.0.0.1:2" } as const;
  assertEquals(readAnnouncement(announcementLine(told)), { kind: "ready", pid: Deno.pid, ...told });
});

Deno.test("readAnnouncement() takes nothing else for an announcement", () => {
  const lines = [
    "",
    "Listening on http://127.0.0.1:1",
    '{"kind":"ready"',
    '{"kind":"ready"}',
    '{"kind":"ready","pid":"1","url":"","name":"","role":"full","clusterUrl":""}',
    '{"kind":"ready","pid":1,"url":"","name":"","role":"king","clusterUrl":""}',
    '{"kind":"gone","pid":1,"url":"","name":"","role":"full","clusterUrl":""}',
  ];
  for (const line of lines) assertEquals(readAnnouncement(line), undefined, line);
});
