/**
 * When a mouth has which shape: `parley.viseme` events, in time with what is heard. No DOM: avatar.js draws it.
 *
 * @typedef {[name: string, open: number]} Shape `open` from 0 to 1
 */

/** @type {Shape} */
export const REST = ["rest", 0];
const KEPT_MS = 10_000;

export class Lips {
  /** @param {number} delay from an event's coming to its sound being heard, ms, where nobody reports what is played */
  constructor(delay) {
    this.delay = delay;
    /** @type {{item: string, from: number, to: number, shape: Shape}[]} ms of the item's audio */
    this.shapes = [];
    /** @type {Map<string, number>} item -> when its first sample is heard, ms of the page's clock */
    this.began = new Map();
  }

  /**
   * @param {any} event
   * @param {number} now ms
   */
  take(event, now) {
    if (event.type === "output_audio_buffer.cleared" || event.type === "conversation.item.truncated") this.cut();
    if (event.type !== "parley.viseme") return;
    const { item_id: item, audio_ms, step_ms } = event;
    if (!this.began.has(item)) this.began.set(item, now + this.delay - audio_ms);
    for (const [n, shape] of event.shapes.entries()) {
      const from = audio_ms + n * step_ms;
      this.shapes.push({ item, from, to: from + step_ms, shape });
    }
    this.shapes = this.shapes.filter((each) => this.at(each.item, each.to) > now - KEPT_MS);
  }

  /**
   * So much of an item has been heard: that is when its other moments are.
   * @param {string} item
   * @param {number} ms
   * @param {number} now ms
   */
  played(item, ms, now) {
    this.began.set(item, now - ms);
  }

  /** What was said so far is not to be heard any more. */
  cut() {
    this.shapes = [];
    this.began.clear();
  }

  /**
   * @param {string} item
   * @param {number} ms of its audio
   */
  at(item, ms) {
    return (this.began.get(item) ?? Infinity) + ms;
  }

  /**
   * @param {number} now ms
   * @returns {Shape}
   */
  shape(now) {
    const found = this.shapes.find(({ item, from, to }) => this.at(item, from) <= now && now < this.at(item, to));
    return found?.shape ?? REST;
  }
}
