// What needs no browser: transcript, timeline, the kiosk's states. Run by test_scripts.py (node --test).
import assert from "node:assert/strict";
import { test } from "node:test";
import { Kiosk } from "../../clients/kiosk/kiosk-state.js";
import { motion } from "../../clients/kiosk/presence.js";
import { Lips, REST } from "../../clients/web/lips.js";
import { Transcript } from "../../clients/web/transcript.js";
import { Timeline, median, spans } from "../../clients/web/timeline.js";

const said = (id, role, text, status = "completed") => ({
  id, type: "message", role, status, content: [{ type: role === "user" ? "input_text" : "output_audio", transcript: text }],
});

function turn(transcript, n, user, assistant) {
  transcript.take({ type: "input_audio_buffer.speech_started", item_id: `u${n}` });
  transcript.take({ type: "conversation.item.input_audio_transcription.delta", item_id: `u${n}`, delta: user });
  transcript.take({ type: "conversation.item.input_audio_transcription.completed", item_id: `u${n}`, transcript: user });
  for (const word of assistant.split(/(?<= )/)) {
    transcript.take({ type: "response.output_audio_transcript.delta", item_id: `a${n}`, delta: word });
  }
}

test("both sides, in order", () => {
  const transcript = new Transcript();
  turn(transcript, 1, " When? ", "At noon.");
  turn(transcript, 2, "Where?", "Here.");
  assert.deepEqual(transcript.entries.map(({ role, text }) => [role, text]), [
    ["user", "When?"], ["assistant", "At noon."], ["user", "Where?"], ["assistant", "Here."],
  ]);
});

test("what was cut off is kept apart from what was heard", () => {
  const transcript = new Transcript();
  turn(transcript, 1, "When?", "The next train leaves at noon.");
  transcript.take({ type: "response.done", response: { output: [said("a1", "assistant", "The next train", "incomplete")] } });
  const [, answer] = transcript.entries;
  assert.equal(answer.text, "The next train");
  assert.equal(answer.cut, " leaves at noon.");
  assert.equal(answer.open, false);
});

test("what was cut off after all of it had been sent is kept apart too", () => {
  const transcript = new Transcript();
  turn(transcript, 1, "When?", "The next train leaves at noon.");
  transcript.take({ type: "response.done", response: { output: [said("a1", "assistant", "The next train leaves at noon.")] } });
  const heard = { type: "parley.heard", item_id: "a1", content_index: 0, audio_end_ms: 900, transcript: "The next train" };
  assert.equal(transcript.take(heard), true);
  const [, answer] = transcript.entries;
  assert.deepEqual([answer.text, answer.cut, answer.open], ["The next train", " leaves at noon.", false]);
  transcript.take({ ...heard, transcript: "The next train leaves" }); // the client knew better
  assert.deepEqual([answer.text, answer.cut], ["The next train leaves", " at noon."]);
  assert.equal(transcript.take({ ...heard, item_id: "a2" }), false);
});

test("a server that has forgotten is told what was heard, no more", () => {
  const transcript = new Transcript();
  turn(transcript, 1, "When?", "The next train leaves at noon.");
  transcript.take({ type: "response.done", response: { output: [said("a1", "assistant", "The next train", "incomplete")] } });
  transcript.take({ type: "conversation.item.added", item: { id: "f1", type: "function_call", name: "look_up" } });
  assert.deepEqual(transcript.items(), [
    { type: "message", role: "user", content: [{ type: "input_text", text: "When?" }] },
    { type: "message", role: "assistant", content: [{ type: "output_text", text: "The next train" }] },
  ]);
});

test("a line that was never said disappears", () => {
  const transcript = new Transcript();
  transcript.take({ type: "input_audio_buffer.speech_started", item_id: "u1" });
  transcript.take({ type: "input_audio_buffer.cleared" });
  assert.deepEqual(transcript.entries, []);
});

test("events that nobody knows change nothing", () => {
  const transcript = new Transcript();
  assert.equal(transcript.take({ type: "parley.news" }), false);
});

const latency = { eot_delay_ms: 500, prefill_lag: 3, ttft_ms: 40, ttfa_ms: 90, ttfa_audible_ms: 100, e2e_ms: 600 };

function measured(more = {}) {
  const timeline = new Timeline();
  timeline.take({ type: "input_audio_buffer.speech_started", audio_start_ms: 1000 }, 0);
  timeline.take({ type: "input_audio_buffer.speech_stopped", audio_end_ms: 2500 }, 1500);
  timeline.take({ type: "response.created", response: { id: "r1" } }, 2000);
  timeline.take({ type: "output_audio_buffer.started", response_id: "r1" }, 2100);
  timeline.take({ type: "output_audio_buffer.stopped", response_id: "r1" }, 4100);
  timeline.take({ type: "parley.latency", response_id: "r1", ...latency, ...more }, 4100);
  return timeline.turns[0];
}

test("a turn's spans follow each other from the true end of speech on", () => {
  const found = spans(measured());
  assert.deepEqual(found.map(({ name }) => name), ["speech", "eot_delay", "ttft", "ttfa", "send", "playout"]);
  assert.equal(found[0].from, -1500);
  for (let n = 1; n < found.length; n++) assert.equal(found[n].from, found[n - 1].to);
  assert.equal(found.at(-1).to, 600 + 2000);
});

test("an interruption ends where playout ended", () => {
  const found = spans(measured({ interrupt_stop_ms: 300 }));
  assert.deepEqual(found.at(-1), { name: "stop", from: 2300, to: 2600 });
});

test("what was asked in writing has no end of speech", () => {
  const found = spans(measured({ eot_delay_ms: null, e2e_ms: null, ttft_ms: 40, ttfa_ms: 90 }));
  assert.ok(found.every(({ from, to }) => Number.isFinite(from) && to > from));
});

test("the middle", () => {
  assert.equal(median([]), null);
  assert.equal(median([null, 3, 1, 2]), 2);
});

// --- the face ---

const viseme = (audio_ms, shapes, item_id = "a1") => ({ type: "parley.viseme", item_id, audio_ms, step_ms: 40, shapes });

test("a mouth moves when its sound is heard, and is shut before and after", () => {
  const lips = new Lips(80);
  lips.take(viseme(0, [["open", 1], ["wide", 0.5]]), 1000);
  lips.take(viseme(80, [["teeth", 0.2]]), 1100); // late, as events are: its place is told by the first
  const seen = [1079, 1080, 1119, 1120, 1160, 1199, 1200].map((now) => lips.shape(now)[0]);
  assert.deepEqual(seen, ["rest", "open", "open", "wide", "teeth", "teeth", "rest"]);
});

test("where playout is reported, that is what counts", () => {
  const lips = new Lips(0);
  lips.take(viseme(0, [["open", 1], ["wide", 1], ["round", 1]]), 1000);
  lips.played("a1", 40, 1500); // the player began late, or waited
  assert.deepEqual(lips.shape(1000), REST);
  assert.equal(lips.shape(1500)[0], "wide");
  lips.take(viseme(120, [["teeth", 1]]), 1510);
  assert.equal(lips.shape(1585)[0], "teeth");
});

test("what was cut is not mouthed, and the next item is", () => {
  const lips = new Lips(0);
  lips.take(viseme(0, [["open", 1], ["open", 1]]), 0);
  lips.take({ type: "conversation.item.truncated", item_id: "a1" }, 10);
  assert.deepEqual(lips.shape(20), REST);
  lips.take(viseme(0, [["round", 1]], "a2"), 30);
  assert.equal(lips.shape(40)[0], "round");
});

test("an hour of talk leaves nothing behind", () => {
  const lips = new Lips(80);
  for (let ms = 0; ms < 3.6e6; ms += 80) lips.take(viseme(ms, [["open", 1], ["wide", 1]]), ms);
  assert.ok(lips.shapes.length < 600);
});

// --- the kiosk ---

const kiosk = () => new Kiosk({ idleS: 60, askS: 15 });

test("a kiosk is woken, asks after a while, and is as at first when nobody answers", () => {
  const it = kiosk();
  assert.equal(it.feed("touch", 1000), "start");
  assert.equal(it.tick(60_999), null);
  assert.equal(it.tick(61_000), null);
  assert.equal(it.state, "ask");
  assert.equal(it.tick(75_999), null);
  assert.equal(it.tick(76_000), "reset");
  assert.equal(it.state, "attract");
});

test("whoever is still there goes on", () => {
  const it = kiosk();
  it.feed("presence", 0);
  for (let now = 0; now < 600_000; now += 50_000) {
    it.tick(now);
    it.feed("activity", now);
    assert.equal(it.state, "talk");
  }
  it.tick(611_000);
  assert.equal(it.state, "ask");
  it.feed("touch", 612_000);
  assert.equal(it.state, "talk");
});

test("trouble is never shown, and passes", () => {
  const it = kiosk();
  it.feed("touch", 0);
  assert.equal(it.feed("problem", 1), "reset");
  assert.equal(it.state, "away");
  assert.equal(it.feed("touch", 2), null);
  it.feed("healthy", 3);
  assert.equal(it.state, "attract");
});

test("whatever happens, in any order, it is in one of its states and starts only from the first", () => {
  const events = ["touch", "presence", "activity", "finish", "problem", "healthy", "unhealthy"];
  let seed = 7;
  const random = (n) => (seed = (seed * 16807) % 2147483647) % n;
  const it = kiosk();
  let open = false;
  for (let now = 0; now < 3e6; now += random(9000)) {
    const action = random(3) ? it.feed(events[random(events.length)], now) : it.tick(now);
    assert.ok(["attract", "talk", "ask", "away"].includes(it.state));
    if (action === "start") assert.equal(open, false);
    if (action) open = action === "start";
    assert.equal(open, it.state === "talk" || it.state === "ask");
  }
});

test("somebody who steps into the picture is motion, a flicker is not", () => {
  const picture = (x) => Uint8ClampedArray.from({ length: 32 * 24 * 4 }, (_, n) => (Math.floor(n / 4) % 32 >= x ? 200 : 40));
  assert.ok(motion(picture(32), picture(26)) > 12);
  assert.ok(motion(picture(10), picture(10).map((value) => value + 5)) < 12);
});
