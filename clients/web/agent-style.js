/** The looks of `<parley-agent>`. Every colour and measure that a page may want to change is a variable. */

const DARK = /* css */ `
  --accent: var(--parley-accent, #7fb5a1);
  --on-accent: var(--parley-on-accent, #10201a);
  --surface: var(--parley-surface, #1d1f1e);
  --raised: var(--parley-raised, #272a29);
  --text: var(--parley-text, #eceae5);
  --muted: var(--parley-muted, #a3a199);
  --line: var(--parley-line, #363a38);
  --danger: var(--parley-danger, #ec9a86);
  --user: var(--parley-user, #2a3a34);
`;

export const STYLE = /* css */ `
:host {
  --accent: var(--parley-accent, #3d6b5c);
  --on-accent: var(--parley-on-accent, #ffffff);
  --surface: var(--parley-surface, #ffffff);
  --raised: var(--parley-raised, #f4f2ee);
  --text: var(--parley-text, #22211f);
  --muted: var(--parley-muted, #6a675f);
  --line: var(--parley-line, #e3dfd8);
  --danger: var(--parley-danger, #a8412f);
  --user: var(--parley-user, #e4eee9);
  --radius: var(--parley-radius, 22px);
  --talk: var(--parley-talk-size, 8.5rem);
  display: flex; flex-direction: column; min-height: 30rem;
  color: var(--text);
  font: 400 1rem/1.5 var(--parley-font, ui-sans-serif, system-ui, -apple-system, "Segoe UI", sans-serif);
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :host(:not([theme="light"])) {
    ${DARK}
  }
}
:host([theme="dark"]) {
  ${DARK}
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
.card {
  flex: 1 0 auto; /* it grows with what it must show; the log scrolls in what is left */
  display: flex; flex-direction: column; gap: 1rem;
  padding: 1.25rem; background: var(--surface); border: 1px solid var(--line); border-radius: var(--radius);
}
header { display: flex; align-items: baseline; justify-content: space-between; gap: 1rem; }
h2 { margin: 0; font-size: 1.05rem; font-weight: 600; letter-spacing: -0.01em; }
.status { color: var(--muted); font-size: 0.9rem; }
.stage { position: relative; display: grid; justify-items: center; gap: 1.4rem; padding: 1.5rem 0 0.25rem; }
.stage:has(.avatar:not([hidden])) { --talk: 6rem; }
.avatar { width: min(11rem, 50%); }
.avatar .face { fill: var(--accent); opacity: 0.16; }
.avatar .eye { fill: var(--accent); }
.avatar .mouth { fill: none; stroke: var(--accent); stroke-width: 4; }
.talk {
  --level: 0;
  position: relative; width: var(--talk); height: var(--talk); border: 0; border-radius: 50%; cursor: pointer;
  display: grid; place-items: center; align-content: center; gap: 0.2rem;
  background: var(--accent); color: var(--on-accent); font: inherit; font-size: 0.92rem; font-weight: 600;
  transition: background 0.3s, color 0.3s; touch-action: manipulation; user-select: none;
}
.talk::before, .talk::after {
  content: ""; position: absolute; inset: 0; border-radius: 50%; pointer-events: none;
  border: 2px solid var(--accent); opacity: calc(0.15 + var(--level) * 0.6);
  transform: scale(calc(1.06 + var(--level) * 0.1)); transition: transform 0.09s linear, opacity 0.09s linear;
}
.talk::after { opacity: calc(var(--level) * 0.35); transform: scale(calc(1.1 + var(--level) * 0.18)); } /* short of what is beside it */
.talk svg { width: 1.9rem; height: 1.9rem; }
.talk.quiet { background: var(--raised); color: var(--text); }
.talk.quiet::before { border-color: var(--muted); }
.talk.busy::before { border-top-color: transparent; animation: turn 1.2s linear infinite; opacity: 0.7; }
@keyframes turn { to { transform: scale(1.06) rotate(1turn); } }
.caption {
  margin: 0; min-height: 3em; max-width: 34rem; text-align: center; text-wrap: balance; font-size: 1.1rem; line-height: 1.45;
}
.preview {
  position: absolute; right: 0; top: 0; width: 8rem; aspect-ratio: 4 / 3; object-fit: cover;
  border-radius: 14px; background: var(--raised); border: 1px solid var(--line);
}
.preview.mirror { transform: scaleX(-1); }
.problem {
  display: grid; gap: 0.6rem; justify-items: start; padding: 0.9rem 1rem; border-radius: 14px;
  background: color-mix(in srgb, var(--danger) 12%, var(--surface)); border: 1px solid color-mix(in srgb, var(--danger) 35%, transparent);
}
.problem strong { color: var(--danger); }
.problem p { margin: 0; }
.log {
  flex: 1 1 8rem; min-height: 6rem; overflow-y: auto; overscroll-behavior: contain; margin: 0; padding: 0.25rem;
  list-style: none; display: flex; flex-direction: column; gap: 0.5rem; scrollbar-width: thin;
}
.log li { max-width: 85%; padding: 0.5rem 0.85rem; border-radius: 16px; overflow-wrap: anywhere; }
.log .user { align-self: flex-end; background: var(--user); border-bottom-right-radius: 5px; }
.log .assistant { align-self: flex-start; background: var(--raised); border-bottom-left-radius: 5px; }
.log .tool { align-self: center; color: var(--muted); font-size: 0.85rem; padding: 0; }
.log s { color: var(--muted); }
.log .empty { align-self: center; margin: 0 auto; max-width: 24rem; text-align: center; color: var(--muted); }
.dots::after { content: "…"; animation: blink 1.2s steps(2) infinite; }
@keyframes blink { 50% { opacity: 0.25; } }
form.say { display: flex; gap: 0.5rem; }
input, select {
  font: inherit; color: inherit; background: var(--raised); border: 1px solid var(--line); border-radius: 12px;
  padding: 0.55rem 0.8rem; min-width: 0;
}
input::placeholder { color: var(--muted); opacity: 1; }
form.say input { flex: 1; border-radius: 999px; padding-inline: 1.1rem; }
.bar { display: flex; justify-content: center; flex-wrap: wrap; gap: 0.5rem; }
.tool-button, .plain {
  font: inherit; color: inherit; cursor: pointer; border: 1px solid var(--line); background: var(--surface);
}
.tool-button { width: 2.85rem; height: 2.85rem; border-radius: 50%; display: grid; place-items: center; }
.tool-button svg { width: 1.25rem; height: 1.25rem; }
.tool-button:hover, .plain:hover { background: var(--raised); }
.tool-button[aria-pressed="true"] { background: var(--text); color: var(--surface); border-color: var(--text); }
.tool-button.end { background: var(--danger); color: var(--surface); border-color: var(--danger); }
.plain { border-radius: 999px; padding: 0.5rem 1.1rem; font-size: 0.95rem; }
.settings { display: grid; gap: 0.75rem; padding: 1rem; border-radius: 14px; background: var(--raised); }
.settings label { display: grid; gap: 0.25rem; font-size: 0.9rem; color: var(--muted); }
.settings label.tick { display: flex; align-items: center; gap: 0.6rem; color: var(--text); }
.settings input, .settings select { background: var(--surface); color: var(--text); }
.settings input[type="checkbox"] { accent-color: var(--accent); width: 1.1rem; height: 1.1rem; }
:focus-visible { outline: 3px solid color-mix(in srgb, var(--accent) 60%, transparent); outline-offset: 3px; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (max-width: 30rem) {
  .card { padding: 1rem; gap: 0.75rem; }
  .stage { padding-top: 0.9rem; }
  :host { --talk: var(--parley-talk-size, 7.25rem); }
  .preview { width: 6rem; }
  .log li { max-width: 92%; }
}
@media (prefers-reduced-motion: reduce) {
  .talk::before, .talk::after, .talk.busy::before, .dots::after { animation: none; transition: none; }
}
`;
