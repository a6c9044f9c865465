/** The page: the element, and a drawer with the last turns for whoever wants to look under the bonnet. */

import "./parley-agent.js";
import { FIGURES, Timeline, median, spans } from "./timeline.js";

const WORDS = {
  speech: "they speak",
  eot_delay: "waiting: is it over?",
  ttft: "first token",
  ttfa: "first sound",
  send: "on its way",
  playout: "we speak",
  stop: "interrupted",
};

const timeline = new Timeline();
const agent = /** @type {import("./parley-agent.js").ParleyAgent} */ (document.querySelector("parley-agent"));
const drawer = /** @type {HTMLDetailsElement} */ (document.querySelector("#bonnet"));
const asked = new URLSearchParams(location.search);
if (asked.has("avatar")) agent.setAttribute("avatar", "");
for (const name of ["transport", "theme", "voice"]) if (asked.get(name)) agent.setAttribute(name, asked.get(name) ?? "");

agent.addEventListener("event", (/** @type {any} */ event) => {
  if (timeline.take(event.detail, performance.now()) && drawer.open) draw();
});
drawer.addEventListener("toggle", draw);
draw();

function draw() {
  const turns = timeline.turns.filter((turn) => Object.keys(turn.latency).length);
  document.querySelector("#turns")?.replaceChildren(...turns.map(strip).reverse());
  document.querySelector("#numbers")?.replaceChildren(...(turns.length ? figures(turns) : []));
  document.querySelector("#nothing")?.toggleAttribute("hidden", turns.length > 0);
  document.querySelector("#numbers-box")?.toggleAttribute("hidden", turns.length === 0);
}

/** One turn as a strip of spans. @param {import("./timeline.js").Turn} turn */
function strip(turn) {
  const all = spans(turn);
  const first = Math.min(...all.map((span) => span.from), 0);
  const width = Math.max(...all.map((span) => span.to), 1) - first;
  const bar = node("div", "strip");
  for (const { name, from, to } of all) {
    const part = node("span", `span ${name}`);
    part.style.left = `${((from - first) / width) * 100}%`;
    part.style.width = `${Math.max(0.4, ((to - from) / width) * 100)}%`;
    part.title = `${WORDS[name]}: ${Math.round(to - from)} ms`;
    bar.append(part);
  }
  const item = node("li");
  const { e2e_ms, interrupt_stop_ms } = turn.latency;
  const words = e2e_ms == null ? "asked in writing" : `first packet ${Math.round(e2e_ms)} ms after their last word`;
  item.append(bar, node("small", "", interrupt_stop_ms ? `${words}; interrupted` : words));
  return item;
}

/** @param {import("./timeline.js").Turn[]} turns */
function figures(turns) {
  return Object.entries(FIGURES).map(([name, meaning]) => {
    const row = node("tr");
    const values = turns.map((turn) => turn.latency[name]);
    const label = node("th", "", name.replace(/_ms$/, ""));
    label.append(node("small", "", meaning));
    label.setAttribute("scope", "row");
    row.append(label, node("td", "", shown(name, values.at(-1) ?? null)), node("td", "", shown(name, median(values))));
    return row;
  });
}

/**
 * @param {string} name
 * @param {number | null} value
 */
function shown(name, value) {
  if (value === null) return "–";
  return name.endsWith("_ms") ? `${Math.round(value)} ms` : String(value);
}

/**
 * @param {string} tag
 * @param {string} [kind]
 * @param {string} [text]
 */
function node(tag, kind = "", text = "") {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text) made.textContent = text;
  return made;
}
