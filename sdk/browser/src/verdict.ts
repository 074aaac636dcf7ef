/** Checks a receipt and shows each check as a line, who sat on the jury, and what was found. */

import { checkAsked, type Question } from "./question.ts";
import { InvalidReceipt, type Summary, verifyReceipt } from "./receipt.ts";
import { element, shown, type Standing } from "./show.ts";
import { CHECKS, type Line, lineOf } from "./words.ts";

/** Verify and show. `asked` is what the receipt must be about, if this page asked for it. */
export function showVerdict(raw: Uint8Array, output: Uint8Array | undefined, asked: { question: Question; node: string } | undefined): Standing {
  const order: Line[] = ["form", "question", "commitment", "jury", "votes", "certificate"];
  if (output !== undefined) order.push("answer");
  if (asked !== undefined) order.push("asked", "requester");
  const passed = new Set<Line>();
  let fault: InvalidReceipt | undefined;
  let summary: Summary | undefined;
  try {
    const verified = verifyReceipt(raw, output, (stage) => passed.add(stage));
    if (asked !== undefined) checkAsked(verified, asked.question, asked.node);
    summary = verified.summary;
    for (const each of order) passed.add(each);
  } catch (error) {
    if (!(error instanceof InvalidReceipt)) throw error;
    fault = error;
    if (fault.fault === "requester") passed.add("asked");
  }
  showChecks(order, passed, fault);
  const state = standing(summary);
  element("verdict").dataset["state"] = state;
  element("verdict").dataset["fault"] = fault?.fault ?? "";
  element("verdict-words").textContent = words(summary);
  shown(element("verdict"), true);
  shown(element("jury-shown"), summary !== undefined);
  if (summary !== undefined) showSummary(summary);
  offer("save-receipt", "job.receipt", raw);
  offer("save-output", "job.output", output);
  shown(element("saving"), asked !== undefined);
  return state;
}

function standing(summary: Summary | undefined): Standing {
  if (summary === undefined || summary.verdict === "reject") return "bad";
  return summary.verdict === "accept" ? "good" : "unknown";
}

function words(summary: Summary | undefined): string {
  if (summary === undefined) return "Not valid: do not believe this";
  const { verdict, jurors, jury_size: size } = summary;
  if (verdict === "unaudited") return "Valid, but nobody vouches for the answer";
  const agreed = jurors.filter((juror) => juror.verdict === verdict).length;
  return verdict === "accept" ? `Checked: ${agreed} of ${size} jurors accepted it` : `Rejected by ${agreed} of ${size} jurors`;
}

function showChecks(order: Line[], passed: Set<Line>, fault: InvalidReceipt | undefined): void {
  const broken = fault === undefined ? undefined : lineOf(fault.fault);
  const lines = order.map((each) => {
    const line = document.createElement("li");
    const state = each === broken ? "bad" : passed.has(each) ? "good" : "unknown";
    line.dataset["state"] = state;
    line.dataset["check"] = each;
    const why = state === "bad" ? ` This does not hold: ${fault?.message}.` : state === "unknown" ? " (not reached)" : "";
    line.textContent = CHECKS[each] + why;
    return line;
  });
  element("checks").replaceChildren(...lines);
}

function showSummary(summary: Summary): void {
  const rows = summary.jurors.map(({ peer, verdict, distances }) => {
    const row = document.createElement("tr");
    const measured = [...distances].map(([name, value]) => `${name} ${value.toPrecision(3)}`).join(", ") || "–";
    row.append(cell(short(peer), peer), cell(verdict), cell(measured));
    return row;
  });
  element("jurors").replaceChildren(...rows);
  const facts: [string, string][] = [
    ["Worker", summary.worker],
    ["Asked by", summary.requester],
    ["Model", summary.model],
    ["Compared", summary.lane === "exact" ? "byte for byte" : "within committed thresholds"],
    ["Thresholds", summary.calibration],
    ["Passed over", `${summary.replaced} peers that stood before a juror in the draw`],
    ["Price", `${summary.price_micro.toLocaleString()} micro-credits, and ${summary.fee_micro.toLocaleString()} for each juror`],
  ];
  element("facts").replaceChildren(...facts.flatMap(([name, value]) => [text("dt", name), text("dd", value)]));
}

function text(tag: string, words: string): HTMLElement {
  const made = document.createElement(tag);
  made.textContent = words;
  return made;
}

function cell(words: string, title = ""): HTMLElement {
  const made = text("td", words);
  made.title = title;
  return made;
}

/** The end of a peer id: its beginning is that of all of them. */
function short(peer: string): string {
  return `…${peer.slice(-8)}`;
}

function offer(id: string, name: string, raw: Uint8Array | undefined): void {
  const link = element<HTMLAnchorElement>(id);
  if (link.href.startsWith("blob:")) URL.revokeObjectURL(link.href);
  shown(link, raw !== undefined);
  if (raw === undefined) return;
  link.download = name;
  link.href = URL.createObjectURL(new Blob([raw as Uint8Array<ArrayBuffer>]));
}
