/**
 * The last turns, from the server's events: what a person who looks under the bonnet wants to see. No DOM.
 *
 * Time zero of a turn is the true end of their speech. The server measures (`parley.latency`), except how long they
 * spoke and how long the reply was heard.
 *
 * @typedef {object} Span
 * @property {"speech" | "eot_delay" | "ttft" | "ttfa" | "send" | "playout" | "stop"} name
 * @property {number} from ms
 * @property {number} to ms
 *
 * @typedef {object} Turn
 * @property {string} response
 * @property {number} speechMs
 * @property {number} playoutFrom the page's clock, ms; 0 = not heard (yet)
 * @property {number} playoutTo
 * @property {Record<string, number | null>} latency as the server told it
 */

const KEPT = 6;

/** The numbers, in the order of a turn; names as everywhere in Parley. */
export const FIGURES = {
  eot_delay_ms: "true end of speech → turn decision",
  prefill_lag: "tokens still to prefill when speech ended",
  ttft_ms: "turn decision → first token",
  ttfa_ms: "turn decision → first sound made",
  ttfa_audible_ms: "the same, and the silence it begins with",
  e2e_ms: "true end of speech → first packet sent",
  interrupt_stop_ms: "their interruption → our last sample",
  underrun_ms: "silence within the reply",
};

export class Timeline {
  constructor() {
    /** @type {Turn[]} newest last */
    this.turns = [];
    this.began = 0;
    this.speechMs = 0;
    /** @type {Turn | null} */
    this.playing = null;
  }

  /**
   * @param {any} event of the server
   * @param {number} now ms
   * @returns {boolean} whether anything changed
   */
  take(event, now) {
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        this.began = event.audio_start_ms;
        return false;
      case "input_audio_buffer.speech_stopped":
        this.speechMs = Math.max(0, event.audio_end_ms - this.began);
        return false;
      case "response.created":
        this.begin(event.response.id);
        return false;
      case "output_audio_buffer.started":
        return this.sound(event.response_id, now, false);
      case "response.output_audio.delta":
      case "output_audio_buffer.stopped":
      case "output_audio_buffer.cleared":
        return this.sound(event.response_id, now, true);
      case "parley.latency":
        return this.measured(event);
      default:
        return false;
    }
  }

  /** @param {string} response */
  begin(response) {
    const turn = { response, speechMs: this.speechMs, playoutFrom: 0, playoutTo: 0, latency: {} };
    this.speechMs = 0;
    this.turns = [...this.turns, turn].slice(-KEPT);
  }

  /**
   * @param {string} response
   * @param {number} now
   * @param {boolean} until
   */
  sound(response, now, until) {
    const turn = this.turns.find((each) => each.response === response);
    if (!turn) return false;
    turn.playoutFrom ||= now;
    if (until) turn.playoutTo = now;
    return true;
  }

  /** @param {any} event */
  measured(event) {
    const turn = this.turns.find((each) => each.response === event.response_id);
    if (turn) turn.latency = Object.fromEntries(Object.keys(FIGURES).map((name) => [name, event[name] ?? null]));
    return Boolean(turn);
  }
}

/** @param {Turn} turn @returns {Span[]} */
export function spans(turn) {
  const { eot_delay_ms, ttft_ms, ttfa_ms, e2e_ms, interrupt_stop_ms } = turn.latency;
  const decided = eot_delay_ms ?? 0;
  /** @type {Span[]} */
  const found = [];
  const add = (/** @type {Span["name"]} */ name, /** @type {number} */ from, /** @type {number} */ to) =>
    to > from && found.push({ name, from, to });
  add("speech", -turn.speechMs, 0);
  add("eot_delay", 0, decided);
  const token = decided + (ttft_ms ?? 0);
  const sound = decided + (ttfa_ms ?? ttft_ms ?? 0);
  add("ttft", decided, token);
  add("ttfa", token, sound);
  const sent = Math.max(sound, e2e_ms ?? sound);
  add("send", sound, sent);
  const heard = turn.playoutFrom ? Math.max(0, turn.playoutTo - turn.playoutFrom) : 0;
  add("playout", sent, sent + heard);
  if (interrupt_stop_ms) add("stop", Math.max(sent, sent + heard - interrupt_stop_ms), sent + heard);
  return found;
}

/** @param {(number | null)[]} values @returns {number | null} */
export function median(values) {
  const known = values.filter((value) => value !== null).sort((a, b) => Number(a) - Number(b));
  return known.length ? known[Math.floor((known.length - 1) / 2)] : null;
}
