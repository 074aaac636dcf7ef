/** What stands on the page: small changes of its elements, all by text, none by markup. */

import type { Answer } from "./outputs.ts";

export function element<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no ${id}`);
  return found as T;
}

export function shown(which: HTMLElement, yes: boolean): void {
  which.hidden = !yes;
}

/** An error, or none. */
export function say(words: string): void {
  element("error").textContent = words;
  shown(element("error"), words !== "");
}

export function status(state: "on" | "off" | "lost", words: string): void {
  element("status").dataset["state"] = state;
  element("status").textContent = words;
}

export function clearJob(): void {
  element("steps-done").replaceChildren();
  for (const id of ["waiting", "hurry", "answer", "text", "picture", "verdict"]) shown(element(id), false);
}

/** A step of the job: a new line, or the last one of this name changed. */
export function showStep(name: string, words: string): void {
  const list = element("steps-done");
  let line = list.lastElementChild as HTMLElement | null;
  if (line?.dataset["step"] !== name) {
    line = document.createElement("li");
    line.dataset["step"] = name;
    list.append(line);
  }
  line.textContent = words;
}

export type Standing = "good" | "bad" | "unknown";

export function showText(text: string, standing: string, state: Standing = "unknown"): void {
  shown(element("answer"), true);
  shown(element("text"), true);
  element("text").textContent = text;
  element("answer-state").textContent = standing;
  element("answer-state").dataset["state"] = state;
}

export function showAnswer(answer: Answer, state: Standing): void {
  const standing = { good: "checked", bad: "not to be believed", unknown: "not checked" }[state];
  if ("text" in answer) return showText(answer.text, standing, state);
  shown(element("answer"), true);
  shown(element("text"), false);
  element("answer-state").textContent = standing;
  element("answer-state").dataset["state"] = state;
  const canvas = element<HTMLCanvasElement>("picture");
  shown(canvas, true);
  canvas.width = answer.width;
  canvas.height = answer.height;
  canvas.ariaLabel = "the picture";
  const context = canvas.getContext("2d") as CanvasRenderingContext2D;
  const pixels = context.createImageData(answer.width, answer.height);
  answer.grey.forEach((grey, at) => pixels.data.set([grey, grey, grey, 255], 4 * at));
  context.putImageData(pixels, 0, 0);
}
