import { testSchedulerPolicy } from "../conformance.ts";
import { fcfs } from "./fcfs.ts";

testSchedulerPolicy({ plugin: fcfs });
