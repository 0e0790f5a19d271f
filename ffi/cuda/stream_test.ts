import { assert, assertEquals, assertThrows } from "@std/assert";
import { CudaError } from "./error.ts";
import { contextTest } from "./test_fake.ts";

contextTest("CudaContext.stream() makes streams of both priorities that wait for no other", ({ fake, context }) => {
  fake.takeNotes();
  using _normal = context.stream();
  using _high = context.stream({ priority: "high" });
  assertEquals(fake.takeNotes().filter((line) => line.startsWith("stream")), [
    "stream flags 1 priority 0",
    "stream flags 1 priority -5",
  ]);
});

contextTest("CudaStream copies there and back and fills", ({ context }) => {
  using stream = context.stream();
  using buffer = context.alloc(16);
  stream.fill(buffer.address, 9, 16);
  stream.copyToDevice(buffer.at(4), new Uint8Array([1, 2, 3]));
  stream.copy(buffer.at(12), buffer.at(4), 2);
  const back = new Uint8Array(16);
  stream.copyFromDevice(back, buffer.address);
  assertEquals([...back], [9, 9, 9, 9, 1, 2, 3, 9, 9, 9, 9, 9, 1, 2, 9, 9]);
  stream.copyToDevice(buffer.address, new Uint8Array(0));
  stream.copyFromDevice(new Uint8Array(0), buffer.address);
});

contextTest("CudaStream.capture() gives a graph of what was enqueued", ({ fake, context }) => {
  using stream = context.stream();
  using buffer = context.alloc(16);
  fake.takeNotes();
  using graph = stream.capture(() => stream.fill(buffer.address, 1, 16));
  assertEquals(fake.takeNotes(), [
    "cuStreamBeginCapture_v2",
    "cuMemsetD8Async",
    "cuStreamEndCapture",
    "cuGraphGetNodes",
    "cuGraphInstantiateWithFlags",
    "cuGraphDestroy",
  ]);
  assertEquals(graph.nodes, 3);
  graph.upload(stream);
  graph.launch(stream);
  assertEquals(fake.takeNotes(), ["cuGraphUpload", "cuGraphLaunch"]);
});

contextTest(
  "CudaStream.capture() refuses what a graph cannot hold, and ends also when its body throws",
  ({ fake, context }) => {
    using stream = context.stream();
    using buffer = context.alloc(16);
    const before = fake.live;
    const bodies = [
      () => stream.copyToDevice(buffer.address, new Uint8Array(1)),
      () => stream.copyFromDevice(new Uint8Array(1), buffer.address),
      () => stream.synchronize(),
      () => void stream.idle,
      () => void stream.capture(() => {}),
    ];
    for (const body of bodies) assertThrows(() => stream.capture(body), Error, "the stream is being captured");
    assertEquals(fake.live, before);
    fake.fail("cuStreamEndCapture", 901);
    assertThrows(() => stream.capture(() => {}), CudaError, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED (901)");
    assertThrows(() => stream.capture(() => assert(false, "the body's own error")), Error, "the body's own error");
    fake.fail("cuGraphInstantiateWithFlags", 2);
    assertThrows(() => stream.capture(() => {}), CudaError, "Cannot make a graph of 3 nodes executable");
    fake.fail("");
    assertEquals(fake.live, before);
    stream.synchronize();
  },
);

contextTest("CudaEvent.reached and CudaStream.idle tell not yet from an error", ({ fake, context }) => {
  using stream = context.stream();
  fake.takeNotes();
  using event = context.event();
  using timed = context.event({ timing: true });
  assertEquals(fake.takeNotes().filter((line) => line.startsWith("event")), ["event flags 2", "event flags 0"]);
  stream.record(event);
  stream.wait(event);
  assertEquals([event.reached, stream.idle], [true, true]);
  fake.setEventState(600);
  assertEquals([event.reached, stream.idle], [false, false]);
  fake.setEventState(700);
  assertThrows(() => event.reached, CudaError, "Cannot ask for an event");
  assertThrows(() => stream.idle, CudaError, "Cannot ask a stream");
  event.synchronize();
  assertEquals(timed.msSince(event), 1);
});
