/** The transcript as a list. Lines are kept, so that a screen reader hears what is new and not all of it again. */

/** @typedef {import("./transcript.js").Entry} Entry */
/** @typedef {import("./words.js").Words} Words */

const NEAR_PX = 24;

export class Log {
  /** @param {HTMLElement} list */
  constructor(list) {
    this.list = list;
    /** @type {Map<string, HTMLElement>} by item */
    this.lines = new Map();
    this.following = true; // they read the end
    this.top = 0;
    list.addEventListener("scroll", () => this.scrolled());
    new ResizeObserver(() => this.follow()).observe(list);
  }

  /** Ours go down only: who scrolls up wants to read there, until they come back to the end. */
  scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.list;
    if (scrollHeight - scrollTop - clientHeight < NEAR_PX) this.following = true;
    else if (scrollTop < this.top) this.following = false;
    this.top = scrollTop;
  }

  follow() {
    if (this.following) this.list.scrollTop = this.list.scrollHeight;
  }

  /**
   * @param {Entry[]} entries
   * @param {Words} words
   * @param {string} greeting stands there while nothing was said
   */
  draw(entries, words, greeting) {
    const { list, lines } = this;
    if (!lines.size) list.replaceChildren();
    for (const [id, line] of lines) {
      if (entries.some((entry) => entry.id === id)) continue;
      line.remove();
      lines.delete(id);
    }
    for (const entry of entries) {
      const line = lines.get(entry.id) ?? list.appendChild(document.createElement("li"));
      lines.set(entry.id, line);
      write(line, entry, words);
    }
    if (!lines.size) list.replaceChildren(empty(greeting));
    this.follow();
  }
}

/** @param {string} greeting */
function empty(greeting) {
  const line = document.createElement("li");
  line.className = "empty";
  line.textContent = greeting;
  return line;
}

/**
 * @param {HTMLElement} line
 * @param {Entry} entry
 * @param {Words} words
 */
function write(line, entry, words) {
  const text = entry.role === "tool" ? `${words.used} ${entry.text}` : entry.text;
  line.className = entry.open && !entry.text ? `${entry.role} dots` : entry.role;
  if (line.dataset.shown === `${text}|${entry.cut}`) return;
  line.dataset.shown = `${text}|${entry.cut}`;
  line.textContent = text;
  if (!entry.cut) return;
  const cut = document.createElement("s");
  cut.textContent = entry.cut;
  cut.title = words.cut;
  line.append(cut);
}
