/**
 * What was said, as a list that follows the server's events. No DOM: the page draws it, tests read it.
 *
 * @typedef {object} Entry
 * @property {string} id of the conversation's item
 * @property {"user" | "assistant" | "tool"} role
 * @property {string} text
 * @property {string} cut what was written and never heard
 * @property {boolean} open more may come
 */

export class Transcript {
  constructor() {
    /** @type {Entry[]} */
    this.entries = [];
  }

  /**
   * @param {any} event of the server
   * @returns {boolean} whether anything changed
   */
  take(event) {
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        this.entry(event.item_id, "user");
        return true;
      case "input_audio_buffer.cleared":
        return this.forget((entry) => entry.role === "user" && entry.open && !entry.text);
      case "conversation.item.added":
      case "conversation.item.created":
        return this.added(event.item);
      case "conversation.item.input_audio_transcription.delta":
        return this.write(this.entry(event.item_id, "user"), event.delta);
      case "conversation.item.input_audio_transcription.completed":
        return this.finish(this.entry(event.item_id, "user"), event.transcript.trim());
      case "conversation.item.input_audio_transcription.failed":
        return this.finish(this.entry(event.item_id, "user"), "");
      case "response.output_audio_transcript.delta":
      case "response.output_text.delta":
        return this.write(this.entry(event.item_id, "assistant"), event.delta);
      case "response.done":
        for (const item of event.response.output ?? []) this.settle(item);
        return true;
      case "parley.heard": // after response.done, where the last words were sent and not heard yet
        return this.heard(event.item_id, event.transcript);
      case "conversation.item.deleted":
        return this.forget((entry) => entry.id === event.item_id);
      default:
        return false;
    }
  }

  /** The words of all items, for a server that has forgotten them. @returns {object[]} items to create */
  items() {
    return this.entries
      .filter((entry) => entry.role !== "tool" && entry.text)
      .map(({ role, text }) => ({
        type: "message",
        role,
        content: [{ type: role === "user" ? "input_text" : "output_text", text }],
      }));
  }

  clear() {
    this.entries = [];
  }

  /**
   * @param {string} id
   * @param {Entry["role"]} role
   * @returns {Entry}
   */
  entry(id, role) {
    let found = this.entries.find((entry) => entry.id === id);
    if (!found) {
      found = { id, role, text: "", cut: "", open: true };
      this.entries.push(found);
    }
    return found;
  }

  /** @param {any} item */
  added(item) {
    if (item.type === "function_call") return this.finish(this.entry(item.id, "tool"), item.name ?? "");
    if (item.type !== "message" || item.role === "system") return false;
    const entry = this.entry(item.id, item.role);
    const text = words(item);
    if (text) this.finish(entry, text);
    return true;
  }

  /** A response is over: what its items hold is what was heard. @param {any} item */
  settle(item) {
    if (item.type !== "message") return;
    const entry = this.entry(item.id, "assistant");
    if (item.status === "incomplete") this.heard(item.id, words(item));
    else entry.text = words(item);
    entry.open = false;
  }

  /**
   * Of what was written, this was heard.
   *
   * @param {string} id
   * @param {string} text
   */
  heard(id, text) {
    const entry = this.entries.find((each) => each.id === id);
    if (!entry) return false;
    const written = entry.text + entry.cut;
    entry.cut = written.startsWith(text) ? written.slice(text.length) : "";
    entry.text = text;
    return true;
  }

  /**
   * @param {Entry} entry
   * @param {string} delta
   */
  write(entry, delta) {
    entry.text += delta;
    return true;
  }

  /**
   * @param {Entry} entry
   * @param {string} text
   */
  finish(entry, text) {
    entry.text = text;
    entry.open = false;
    return true;
  }

  /** @param {(entry: Entry) => boolean} which */
  forget(which) {
    const before = this.entries.length;
    this.entries = this.entries.filter((entry) => !which(entry));
    return this.entries.length !== before;
  }
}

/** @param {any} item */
function words(item) {
  return (item.content ?? []).map((/** @type {any} */ part) => part.transcript ?? part.text ?? "").join("");
}
