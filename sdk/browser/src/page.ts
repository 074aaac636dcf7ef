/** The page: joins a node, asks, shows what happens, checks what comes. */

import type { Connection } from "@libp2p/interface";

import { NotCanonical } from "./canonical.ts";
import { hex, unhex } from "./hashing.ts";
import { loadIdentity } from "./identity.ts";
import { type Ended, LightPeer, Misbehaviour, Refusal } from "./light.ts";
import type { Welcome } from "./messages.ts";
import { answerOf } from "./outputs.ts";
import { type Door, doorOf, openPeer, pathOf } from "./peer.ts";
import { bodyOf, type Question } from "./question.ts";
import { clearJob, element, say, shown, showAnswer, showStep, showText, status } from "./show.ts";
import { showVerdict } from "./verdict.ts";
import { failure, remedy, stateWords } from "./words.ts";

const LAST_DOOR = "quorate.door";
const LAST_JOB = "quorate.job";
const SEED_BITS = 2 ** 48;

/** A question under way, kept so that a reload finds it again. */
interface Kept {
  ask: string;
  question: Question;
  node: string;
}

const form = {
  join: element<HTMLFormElement>("join"),
  ask: element<HTMLFormElement>("ask"),
  door: element<HTMLTextAreaElement>("door"),
};
const field = (id: string): string => element<HTMLInputElement>(id).value;

let light: LightPeer | undefined;
let welcome: Welcome | undefined;
let stop = new AbortController();

function chosenKind(): Question["kind"] {
  return new FormData(form.ask).get("kind") === "image.generate" ? "image.generate" : "text.generate";
}

function showChoices(): void {
  const kind = chosenKind();
  for (const each of document.querySelectorAll<HTMLElement>("[data-for]")) shown(each, each.dataset["for"] === kind);
  const fitting = (welcome?.models ?? []).filter((model) => model.kind === kind);
  const options = fitting.map(({ name, cid }) => new Option(name, cid));
  element("model").replaceChildren(...options);
  element<HTMLButtonElement>("ask-button").disabled = options.length === 0;
}

function questionOf(): Question {
  const kind = chosenKind();
  const [high = 0, low = 0] = crypto.getRandomValues(new Uint32Array(2));
  return {
    kind,
    model: field("model"),
    lane: field("lane") === "exact" ? "exact" : "tolerant",
    jury: Number(field("jury")) as Question["jury"],
    seed: ((high % 2 ** 16) * 2 ** 32 + low) % SEED_BITS,
    input:
      kind === "text.generate"
        ? { prompt: field("prompt"), tokens_max: Number(field("tokens")) }
        : { label: Number(field("digit")), steps: Number(field("steps")) },
  };
}

async function join(door: Door): Promise<void> {
  say("");
  status("off", "connecting …");
  if (light === undefined || light.door.address !== door.address || door.invitation !== null) {
    await light?.peer.stop();
    const peer = await openPeer(await loadIdentity());
    const ours = ({ remotePeer }: Connection): boolean => remotePeer.toString() === door.node; // others are its relays
    peer.addEventListener("connection:close", () => {
      if (!peer.getConnections().some(ours)) status("lost", "connection lost");
    });
    peer.addEventListener("connection:open", ({ detail }) => {
      if (ours(detail)) connected(detail);
    });
    light = new LightPeer(peer, door);
  }
  const met = await light.hello();
  welcome = met.welcome;
  connected(met.connection);
  light = new LightPeer(light.peer, { ...door, invitation: null });
  localStorage.setItem(LAST_DOOR, door.address);
  form.door.value = door.address;
  showLeft(met.welcome);
  showChoices();
  shown(element("asking"), true);
}

function showLeft({ left_micro: left, credit_micro: all }: Welcome): void {
  element("left").textContent = `${left.toLocaleString()} of ${all.toLocaleString()} micro-credits left today`;
}

function connected(connection: Connection): void {
  status("on", `connected by ${pathOf(connection)}`);
}

async function follow(kept: Kept, body: string | null): Promise<void> {
  const peer = light as LightPeer;
  localStorage.setItem(LAST_JOB, JSON.stringify(kept));
  stop.abort();
  stop = new AbortController();
  clearJob();
  shown(element("job"), true);
  shown(element("cancel"), true);
  element("cancel").onclick = () => void peer.cancel(unhex(kept.ask)).catch((error: unknown) => say(failure(error)));
  const ended = await peer.run(unhex(kept.ask), body, { connected: () => waiting(""), taken: () => waiting(""), event: progress, lost }, stop.signal);
  localStorage.removeItem(LAST_JOB);
  shown(element("cancel"), false);
  waiting("");
  finish(kept, ended);
  showLeft((await peer.hello()).welcome);
}

function finish(kept: Kept, ended: Ended): void {
  if (ended.receipt.length === 0) {
    if (ended.state !== "cancelled") say(remedy(ended.code, ended.reason));
    return;
  }
  showStep("cost", `It cost ${ended.costMicro.toLocaleString()} micro-credits.`);
  const verdict = showVerdict(ended.receipt, ended.output, kept);
  try {
    if (ended.output.length > 0) showAnswer(answerOf(kept.question.kind, ended.output), verdict);
  } catch (error) {
    if (!(error instanceof NotCanonical)) throw error;
    say(`The answer cannot be shown: ${error.message}`);
  }
  if (ended.state === "failed") say(remedy(ended.code, ended.reason));
}

let streamed = "";

function progress(event: Record<string, unknown>): void {
  const { type, done, total, text } = event;
  if (type === "queued" || type === "matched") streamed = "";
  if (typeof text === "string") {
    streamed += text;
    showText(streamed, "not checked yet");
  }
  const share = typeof done !== "number" ? "" : typeof total === "number" && total > 0 ? ` ${done} of ${total}` : ` ${done}`;
  if (typeof type === "string") showStep(type, stateWords(type) + share);
}

function waiting(words: string): void {
  shown(element("waiting"), words !== "");
  shown(element("hurry"), words !== "");
  element("waiting").textContent = words;
}

function lost(why: string, againMs: number, hurry: () => void): void {
  waiting(`The node is gone, or does not answer. Your question is not lost: trying again in ${againMs / 1000} s. (${why})`);
  element("hurry").onclick = hurry;
}

/** Run something the user asked for; what goes wrong is said, with the button enabled again. */
async function attempt(button: string, action: () => Promise<void>): Promise<void> {
  const pressed = element<HTMLButtonElement>(button);
  pressed.disabled = true;
  try {
    await action();
  } catch (error) {
    if (stop.signal.aborted) return;
    waiting("");
    if (light?.peer.getConnections().length === 0 || light === undefined) status("off", "not connected");
    if (error instanceof Refusal) localStorage.removeItem(LAST_JOB);
    say(error instanceof Misbehaviour ? `This node does not keep to the protocol: ${error.message}. Use another.` : failure(error));
  } finally {
    pressed.disabled = false;
  }
}

form.join.addEventListener("submit", (event) => {
  event.preventDefault();
  let door: Door;
  try {
    door = doorOf(form.door.value);
  } catch (error) {
    return say((error as Error).message);
  }
  void attempt("join-button", async () => {
    await join(door);
    await resume();
  });
});

form.ask.addEventListener("change", showChoices);
form.ask.addEventListener("submit", (event) => {
  event.preventDefault();
  say("");
  const question = questionOf();
  const ask = hex(crypto.getRandomValues(new Uint8Array(16)));
  const kept = { ask, question, node: (light as LightPeer).door.node };
  void attempt("ask-button", async () => {
    await follow(kept, bodyOf(question));
  });
});

/** What was under way when the page was left. */
async function resume(): Promise<void> {
  const text = localStorage.getItem(LAST_JOB);
  if (text === null) return;
  const kept = JSON.parse(text) as Kept;
  if (kept.node === light?.door.node) await follow(kept, bodyOf(kept.question));
}

async function checkFiles(): Promise<void> {
  const [receipt] = element<HTMLInputElement>("file-receipt").files ?? [];
  const [output] = element<HTMLInputElement>("file-output").files ?? [];
  if (receipt === undefined) return;
  const raw = new Uint8Array(await receipt.arrayBuffer());
  clearJob();
  shown(element("job"), false);
  showVerdict(raw, output === undefined ? undefined : new Uint8Array(await output.arrayBuffer()), undefined);
}

for (const id of ["file-receipt", "file-output"]) element(id).addEventListener("change", () => void checkFiles());

async function start(): Promise<void> {
  const invited = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname); // an invitation stays in no history
  form.door.value = invited || (localStorage.getItem(LAST_DOOR) ?? "");
  try {
    const identity = await loadIdentity();
    element("me").textContent = identity.publicKey.toString();
  } catch (error) {
    say((error as Error).message);
  }
  if (form.door.value !== "") form.join.requestSubmit();
}

await start();
