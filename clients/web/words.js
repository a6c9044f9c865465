/**
 * What `<parley-agent>` and the kiosk say, by language. A page may add its own: `WORDS.it = { ...WORDS.en, ... }`.
 *
 * @typedef {import("./errors.js").Problem} Problem
 *
 * @typedef {object} Words
 * @property {string} name of the language, in itself
 * @property {string} start
 * @property {string} wait
 * @property {string} stop
 * @property {string} hold
 * @property {string} unmute
 * @property {string} mute
 * @property {string} camera
 * @property {string} screen
 * @property {string} settings
 * @property {string} hangUp
 * @property {string} again
 * @property {string} send
 * @property {string} type
 * @property {string} key
 * @property {string} microphone
 * @property {string} connection
 * @property {string} pushToTalk
 * @property {string} captions
 * @property {string} log
 * @property {string} greeting
 * @property {string} listening
 * @property {string} hearing
 * @property {string} thinking
 * @property {string} speaking
 * @property {string} muted
 * @property {string} connecting
 * @property {string} reconnecting
 * @property {string} noCamera
 * @property {string} noScreen
 * @property {string} cut what a listener never heard
 * @property {string} used before the name of a tool
 * @property {string} touch the kiosk's invitation
 * @property {string} there the kiosk: are they still there?
 * @property {string} back the kiosk: it can't serve just now
 * @property {string} finish the kiosk's way back to the start
 * @property {string} textSize
 * @property {Record<Problem, [title: string, advice: string]>} problems
 */

/** @type {Record<string, Words>} */
export const WORDS = {
  en: {
    name: "English", start: "Start talking", wait: "One moment", stop: "Stop", hold: "Hold to talk", unmute: "Unmute",
    mute: "Mute", camera: "Camera", screen: "Share the screen", settings: "Settings", hangUp: "Hang up",
    again: "Try again", send: "Send", type: "Or type here", key: "Key", microphone: "Microphone",
    connection: "Connection", pushToTalk: "Hold the button (or the space bar) to talk", captions: "Captions",
    log: "What was said", greeting: "Say hello. You can interrupt at any time.",
    listening: "Listening", hearing: "Hearing you", thinking: "Thinking", speaking: "Speaking", muted: "Muted",
    connecting: "Connecting…", reconnecting: "Reconnecting…",
    noCamera: "The camera is not available", noScreen: "Nothing is shared",
    cut: "interrupted: this was not heard", used: "used",
    touch: "Touch to talk", there: "Are you still there? Touch to go on.", back: "We’ll be right back.",
    finish: "Finish", textSize: "Text size",
    problems: {
      "no-microphone": ["No microphone found", "Plug one in, or choose another under Settings. You can type in the meantime."],
      blocked: ["The microphone is blocked", "Allow it in the address bar (the icon left of the address), then try again. You can type in the meantime."],
      busy: ["The microphone is in use", "Another program holds it. Close that, or choose another microphone under Settings."],
      insecure: ["The browser gives no microphone here", "Browsers allow it on https:// pages and on localhost only. Open this page there."],
      offline: ["The server can’t be reached", "Check the network, and that the server runs. Trying again is safe."],
      full: ["Everybody is busy", "All lines are taken just now. Try again in a moment."],
      loading: ["The server is starting", "Its model is being loaded. Try again in a moment."],
      key: ["This server needs a key", "Enter the key you were given."],
      lost: ["The connection was lost", "It did not come back. Try again to go on where you were."],
      failed: ["That did not work", "Try again; if it happens again, the server’s log says why."],
    },
  },
  de: {
    name: "Deutsch", start: "Sprechen", wait: "Einen Moment", stop: "Stopp", hold: "Zum Sprechen halten",
    unmute: "Ton an", mute: "Stumm", camera: "Kamera", screen: "Bildschirm teilen", settings: "Einstellungen",
    hangUp: "Auflegen", again: "Noch einmal", send: "Senden", type: "Oder hier tippen", key: "Schlüssel",
    microphone: "Mikrofon", connection: "Verbindung", pushToTalk: "Zum Sprechen Knopf (oder Leertaste) halten",
    captions: "Untertitel", log: "Was gesagt wurde", greeting: "Sagen Sie Hallo. Sie dürfen jederzeit unterbrechen.",
    listening: "Ich höre", hearing: "Ich höre Sie", thinking: "Ich überlege", speaking: "Ich spreche", muted: "Stumm",
    connecting: "Verbinde…", reconnecting: "Verbinde neu…",
    noCamera: "Die Kamera ist nicht verfügbar", noScreen: "Es wird nichts geteilt",
    cut: "unterbrochen: das wurde nicht gehört", used: "benutzt:",
    touch: "Zum Sprechen berühren", there: "Sind Sie noch da? Bitte berühren.", back: "Wir sind gleich zurück.",
    finish: "Beenden", textSize: "Schriftgröße",
    problems: {
      "no-microphone": ["Kein Mikrofon gefunden", "Schließen Sie eins an oder wählen Sie unter Einstellungen ein anderes. Tippen geht auch."],
      blocked: ["Das Mikrofon ist gesperrt", "Erlauben Sie es in der Adresszeile (Symbol links neben der Adresse) und versuchen Sie es noch einmal. Tippen geht auch."],
      busy: ["Das Mikrofon ist belegt", "Ein anderes Programm benutzt es. Schließen Sie das oder wählen Sie ein anderes Mikrofon."],
      insecure: ["Der Browser gibt hier kein Mikrofon frei", "Das geht nur auf https://-Seiten und auf localhost. Öffnen Sie die Seite dort."],
      offline: ["Der Server ist nicht erreichbar", "Prüfen Sie das Netz, und ob der Server läuft."],
      full: ["Alle Leitungen sind belegt", "Versuchen Sie es in einem Moment noch einmal."],
      loading: ["Der Server startet gerade", "Sein Modell wird geladen. Versuchen Sie es in einem Moment noch einmal."],
      key: ["Dieser Server verlangt einen Schlüssel", "Geben Sie den Schlüssel ein, den Sie bekommen haben."],
      lost: ["Die Verbindung ist abgerissen", "Sie kam nicht zurück. Versuchen Sie es noch einmal: es geht dort weiter, wo Sie waren."],
      failed: ["Das hat nicht geklappt", "Versuchen Sie es noch einmal; sonst steht der Grund im Protokoll des Servers."],
    },
  },
  fr: {
    name: "Français", start: "Parler", wait: "Un instant", stop: "Arrêter", hold: "Maintenir pour parler",
    unmute: "Rétablir le son", mute: "Couper le micro", camera: "Caméra", screen: "Partager l’écran",
    settings: "Réglages", hangUp: "Raccrocher", again: "Réessayer", send: "Envoyer", type: "Ou écrivez ici", key: "Clé",
    microphone: "Microphone", connection: "Connexion", pushToTalk: "Maintenir le bouton (ou la barre d’espace) pour parler",
    captions: "Sous-titres", log: "Ce qui a été dit", greeting: "Dites bonjour. Vous pouvez interrompre à tout moment.",
    listening: "J’écoute", hearing: "Je vous entends", thinking: "Je réfléchis", speaking: "Je parle", muted: "Micro coupé",
    connecting: "Connexion…", reconnecting: "Reconnexion…",
    noCamera: "La caméra n’est pas disponible", noScreen: "Rien n’est partagé",
    cut: "interrompu : ceci n’a pas été entendu", used: "a utilisé",
    touch: "Touchez pour parler", there: "Êtes-vous encore là ? Touchez pour continuer.", back: "Nous revenons tout de suite.",
    finish: "Terminer", textSize: "Taille du texte",
    problems: {
      "no-microphone": ["Aucun microphone trouvé", "Branchez-en un ou choisissez-en un autre dans Réglages. Vous pouvez aussi écrire."],
      blocked: ["Le microphone est bloqué", "Autorisez-le dans la barre d’adresse (icône à gauche), puis réessayez. Vous pouvez aussi écrire."],
      busy: ["Le microphone est occupé", "Un autre programme l’utilise. Fermez-le ou choisissez un autre microphone."],
      insecure: ["Le navigateur ne donne pas de microphone ici", "C’est possible seulement en https:// et sur localhost."],
      offline: ["Le serveur est injoignable", "Vérifiez le réseau, et que le serveur fonctionne."],
      full: ["Toutes les lignes sont occupées", "Réessayez dans un instant."],
      loading: ["Le serveur démarre", "Son modèle se charge. Réessayez dans un instant."],
      key: ["Ce serveur demande une clé", "Saisissez la clé que vous avez reçue."],
      lost: ["La connexion est perdue", "Elle n’est pas revenue. Réessayez pour continuer où vous en étiez."],
      failed: ["Cela n’a pas marché", "Réessayez ; sinon le journal du serveur dit pourquoi."],
    },
  },
  es: {
    name: "Español", start: "Hablar", wait: "Un momento", stop: "Parar", hold: "Mantener para hablar",
    unmute: "Activar micrófono", mute: "Silenciar", camera: "Cámara", screen: "Compartir pantalla", settings: "Ajustes",
    hangUp: "Colgar", again: "Reintentar", send: "Enviar", type: "O escriba aquí", key: "Clave",
    microphone: "Micrófono", connection: "Conexión", pushToTalk: "Mantener el botón (o la barra espaciadora) para hablar",
    captions: "Subtítulos", log: "Lo que se dijo", greeting: "Diga hola. Puede interrumpir cuando quiera.",
    listening: "Escucho", hearing: "Le oigo", thinking: "Pienso", speaking: "Hablo", muted: "En silencio",
    connecting: "Conectando…", reconnecting: "Reconectando…",
    noCamera: "La cámara no está disponible", noScreen: "No se comparte nada",
    cut: "interrumpido: esto no se oyó", used: "usó",
    touch: "Toque para hablar", there: "¿Sigue ahí? Toque para continuar.", back: "Volvemos enseguida.",
    finish: "Terminar", textSize: "Tamaño del texto",
    problems: {
      "no-microphone": ["No hay micrófono", "Conecte uno o elija otro en Ajustes. También puede escribir."],
      blocked: ["El micrófono está bloqueado", "Permítalo en la barra de direcciones (icono a la izquierda) y reintente. También puede escribir."],
      busy: ["El micrófono está ocupado", "Otro programa lo usa. Ciérrelo o elija otro micrófono."],
      insecure: ["El navegador no da micrófono aquí", "Solo es posible en https:// y en localhost."],
      offline: ["No se llega al servidor", "Compruebe la red y que el servidor funcione."],
      full: ["Todas las líneas están ocupadas", "Reintente en un momento."],
      loading: ["El servidor está arrancando", "Se está cargando su modelo. Reintente en un momento."],
      key: ["Este servidor pide una clave", "Escriba la clave que recibió."],
      lost: ["Se perdió la conexión", "No volvió. Reintente para seguir donde estaba."],
      failed: ["No funcionó", "Reintente; si se repite, el registro del servidor dice por qué."],
    },
  },
};

/**
 * @param {string | null | undefined} language such as "de-AT"; English where there is none of it
 * @returns {Words}
 */
export function wordsOf(language) {
  return WORDS[(language ?? "en").toLowerCase()] ?? WORDS[(language ?? "en").slice(0, 2).toLowerCase()] ?? WORDS.en;
}
