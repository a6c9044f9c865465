/** What `<parley-agent>` is made of. */

import { FACE } from "./avatar.js";

/** @param {string} path */
const icon = (path) =>
  `<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" ` +
  `stroke-linejoin="round" aria-hidden="true">${path}</svg>`;

export const ICONS = {
  talk: icon('<rect x="9" y="3" width="6" height="11" rx="3"/><path d="M5 11a7 7 0 0 0 14 0M12 18v3"/>'),
  stop: icon('<rect x="7" y="7" width="10" height="10" rx="2"/>'),
  mute: icon('<path d="M9 9v2a3 3 0 0 0 5 2.2M15 10V6a3 3 0 0 0-5.9-.7M5 11a7 7 0 0 0 11 5.7M19 11a7 7 0 0 1-.6 2.8M12 18v3M4 4l16 16"/>'),
  camera: icon('<rect x="3" y="6" width="12" height="12" rx="3"/><path d="m15 11 6-3.5v9L15 13"/>'),
  screen: icon('<rect x="3" y="4" width="18" height="12" rx="2"/><path d="M8 20h8M12 16v4M9.5 10 12 7.5 14.5 10M12 8v5"/>'),
  settings: icon('<path d="M4 7h9M17 7h3M4 17h3M11 17h9"/><circle cx="15" cy="7" r="2"/><circle cx="9" cy="17" r="2"/>'),
  end: icon('<path fill="currentColor" d="M4 14.5c0-5.3 16-5.3 16 0 0 1.8-1 2.6-2.4 2.2l-2-.6c-.9-.3-1.2-.9-1.1-1.8l.1-1c-1.7-.6-3.5-.6-5.2 0l.1 1c.1.9-.2 1.5-1.1 1.8l-2 .6C5 17.1 4 16.3 4 14.5Z"/>'),
  send: icon('<path d="M5 12h14M13 6l6 6-6 6"/>'),
};

export const VIEW = /* html */ `
<section class="card" part="card" aria-labelledby="heading">
  <header>
    <h2 id="heading" part="heading"></h2>
    <span class="status" role="status" part="status"></span>
  </header>
  <div class="stage" part="stage">
    ${FACE}
    <button class="talk" type="button" part="talk"></button>
    <p class="caption" part="caption"></p>
    <video class="preview" part="preview" autoplay muted playsinline hidden></video>
  </div>
  <div class="problem" role="alert" part="problem" hidden>
    <div><strong></strong><p></p></div>
    <form class="key" hidden>
      <label class="hidden" for="key" data-word="key"></label>
      <input id="key" type="password" autocomplete="off" data-word="key">
    </form>
    <button class="plain again" type="button" data-word="again"></button>
  </div>
  <ul class="log" role="log" data-word="log" part="log" tabindex="0"></ul>
  <div class="settings" id="settings" part="settings" hidden>
    <label><span data-word="microphone"></span> <select class="microphones"></select></label>
    <label><span data-word="connection"></span>
      <select class="transport">
        <option value="webrtc">WebRTC (UDP)</option>
        <option value="websocket">WebSocket (TCP)</option>
      </select>
    </label>
    <label class="tick"><input class="push" type="checkbox"> <span data-word="pushToTalk"></span></label>
    <label class="tick"><input class="captions" type="checkbox"> <span data-word="captions"></span></label>
  </div>
  <form class="say" part="say">
    <label class="hidden" for="say" data-word="type"></label>
    <input id="say" autocomplete="off" data-word="type" enterkeyhint="send">
    <button class="tool-button" type="submit" data-word="send">${ICONS.send}</button>
  </form>
  <div class="bar" role="toolbar" aria-label="Conversation" part="bar">
    <button class="tool-button mute" type="button" data-word="mute" aria-pressed="false" hidden>${ICONS.mute}</button>
    <button class="tool-button camera" type="button" data-word="camera" aria-pressed="false" hidden>${ICONS.camera}</button>
    <button class="tool-button screen" part="screen-button" type="button" data-word="screen" aria-pressed="false" hidden>${ICONS.screen}</button>
    <button class="tool-button adjust" part="settings-button" type="button" data-word="settings" aria-expanded="false" aria-controls="settings">${ICONS.settings}</button>
    <button class="tool-button end" part="end-button" type="button" data-word="hangUp" hidden>${ICONS.end}</button>
  </div>
</section>
`;
