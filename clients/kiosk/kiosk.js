/**
 * The kiosk: the element, full screen, for people who have never seen it and will not read instructions.
 *
 * In the address: ?idle=SECONDS (60) until it asks whether they are still there, &languages=en,de (all),
 * &presence (wake when the camera sees somebody move), &token=ek_... where the server has a key, &transport=websocket.
 */

import "../web/parley-agent.js";
import { WORDS, wordsOf } from "../web/words.js";
import { Kiosk } from "./kiosk-state.js";
import { watchForPeople } from "./presence.js";

const asked = new URLSearchParams(location.search);
const kiosk = new Kiosk({ idleS: Number(asked.get("idle")) || 60, askS: 15 });
const languages = (asked.get("languages") ?? Object.keys(WORDS).join()).split(",").filter((name) => WORDS[name]);
const SIZES = [1, 1.25, 1.5];
const ACTIVE = /^(input_audio_buffer\.speech|response\.|output_audio_buffer\.|conversation\.item\.added)/;
const HEALTH_MS = 3000;

/** @template {HTMLElement} T @param {string} selector @returns {T} */
const $ = (selector) => /** @type {T} */ (document.querySelector(selector));
const agent = /** @type {import("../web/parley-agent.js").ParleyAgent} */ ($("parley-agent"));
let size = 0;

for (const name of ["token", "transport"]) if (asked.get(name)) agent.setAttribute(name, asked.get(name) ?? "");
// Nobody here can read a stack trace, or do anything about it.
addEventListener("error", () => happened("problem"));
addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  happened("problem");
});
addEventListener("contextmenu", (event) => event.preventDefault());
// Not while an overlay covers the page: it would be gone before the finger is up, and what lies beneath be pressed.
addEventListener("pointerdown", () => kiosk.state === "talk" && happened("touch"), true);
agent.addEventListener("event", (/** @type {any} */ event) => ACTIVE.test(event.detail.type) && happened("activity"));
for (const name of ["problem", "unheard"]) agent.addEventListener(name, () => happened("problem"));
$("#attract").onclick = () => happened("touch");
$("#ask").onclick = () => happened("touch");
$("#finish").onclick = () => happened("finish");
$("#size").onclick = () => resize((size + 1) % SIZES.length);
$("#languages").replaceChildren(...languages.map(languageButton));
setInterval(() => act(kiosk.tick(performance.now())), 500);
setInterval(invite, 3000);
setInterval(checkHealth, HEALTH_MS);
if (asked.has("presence")) watchForPeople(() => happened("presence"), () => kiosk.state === "attract");
asAtFirst();
checkHealth();
navigator.wakeLock?.request("screen").catch(() => {});

/** @param {import("./kiosk-state.js").Event} event */
function happened(event) {
  act(kiosk.feed(event, performance.now()));
}

/** @param {import("./kiosk-state.js").Action | null} action */
function act(action) {
  document.body.dataset.state = kiosk.state;
  if (action === "reset") asAtFirst();
  if (action === "start") start();
}

async function start() {
  const { name } = wordsOf(document.documentElement.lang);
  agent.session = { instructions: `You serve the visitors of a kiosk. Answer briefly, in ${name}.` };
  await agent.start();
  if (agent.problem) happened("problem");
}

/** The next person is somebody else. */
function asAtFirst() {
  agent.reset();
  resize(0);
  choose(languages[0] ?? "en");
}

/** @param {number} step */
function resize(step) {
  size = step;
  document.documentElement.style.setProperty("--scale", String(SIZES[size]));
}

/** @param {string} language */
function choose(language) {
  const words = wordsOf(language);
  const before = document.documentElement.lang;
  document.documentElement.lang = language;
  agent.setAttribute("lang", language);
  for (const part of document.querySelectorAll("[data-word]")) {
    part.textContent = /** @type {any} */ (words)[/** @type {HTMLElement} */ (part).dataset.word ?? ""];
  }
  $("#size").setAttribute("aria-label", words.textSize);
  for (const button of document.querySelectorAll("#languages button")) {
    button.setAttribute("aria-pressed", String(button.getAttribute("lang") === language));
  }
  if (before !== language && agent.agent) {
    const instructions = `You serve the visitors of a kiosk. Answer briefly, in ${words.name}.`;
    agent.agent.send({ type: "session.update", session: { type: "realtime", instructions } });
  }
  invite();
}

/** @param {string} language */
function languageButton(language) {
  const button = document.createElement("button");
  button.type = "button";
  button.lang = language;
  button.textContent = WORDS[language].name;
  button.onclick = () => choose(language);
  return button;
}

/** In each language for a while. */
function invite() {
  const turn = Math.floor(performance.now() / 3000) % Math.max(1, languages.length);
  const language = languages[turn] ?? "en";
  $("#invitation").textContent = wordsOf(language).touch;
  $("#invitation").lang = language;
}

/** The page of a browser without a server is none that people should see: this page waits until it is back. */
async function checkHealth() {
  if (kiosk.state !== "attract" && kiosk.state !== "away") return;
  const answer = await fetch("/healthz", { cache: "no-store" }).catch(() => null);
  happened(answer?.ok ? "healthy" : "unhealthy");
}
