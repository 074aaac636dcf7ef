"""`quorate demo`: six node processes, three real jobs, one cheat caught, every receipt verified offline.

Everything printed is read back from the nodes through the SDK or computed by a separate process from the
receipt files; nothing is known beforehand but which node was told to cheat.
"""

from __future__ import annotations

import base64
import json
import math
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from node import report
from node.swarm import Swarm, ledgers, six
from node.views import png
from wire.errors import LocalError

STATES = ("queued", "matched", "running", "auditing", "settled")
MODELS = {"text.generate": "bytes-gpt", "image.generate": "digits-ddim", "embed.text": "ngram-embed"}
CHEAT = "fewer-steps"
PROMPT = "If the file does not exist, "
TEXTS = ["open a file", "read a file from disk", "a chess opening"]
ENLARGED = 16
"""A picture of 16 pixels is lost on a screen; a copy this many times larger is not."""

COLOURS = {"good": "green", "bad": "red", "doubtful": "yellow", "": ""}
T = TypeVar("T")


@dataclass
class Task:
    """One job of the demo, as it goes."""

    kind: str
    lane: str
    input: dict[str, Any]
    state: str = ""
    detail: str = ""
    seconds: float = 0.0
    view: dict[str, Any] = field(default_factory=dict)
    receipt_ok: bool = False
    failure: LocalError | None = None


def _tasks() -> list[Task]:
    return [
        Task("text.generate", "exact", {"prompt": PROMPT, "tokens_max": 80, "method": "beam", "beams": 4}),
        Task("image.generate", "tolerant", {"label": 5, "steps": 30}),
        Task("embed.text", "tolerant", {"texts": TEXTS}),
    ]


def main(*, as_json: bool, keep: bool, out: Path) -> int:
    """Run the demo; returns the exit status. With `as_json`, all but the last line goes to stderr."""
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    started = time.monotonic()
    swarm = six(cheat=CHEAT)
    kept = False
    try:
        summary = _run(console, swarm, out)
    except LocalError as exc:
        console.print(f"[red]the demo failed:[/red] {exc}")
        return 1
    except KeyboardInterrupt:
        return 130
    else:
        kept = keep
    finally:
        _finish(console, swarm, keep=kept)
    summary["seconds"] = round(time.monotonic() - started, 2)
    good = summary["cheater_caught"] and summary["ledger_sum"] == 0 and all(j["receipt_ok"] for j in summary["jobs"])
    good = good and all(job["verdict"] == "accept" for job in summary["jobs"])
    console.print(f"\n{'done' if good else '[red]not as it should be[/red]'} in {summary['seconds']} s")
    if as_json:
        print(json.dumps(summary), flush=True)
    return 0 if good else 1


def _run(console: Console, swarm: Swarm, out: Path) -> dict[str, Any]:
    console.print(f"starting six nodes on this machine; [bold]{swarm.members[-1].name}[/bold] will cheat at images")
    asker = swarm.members[0]
    serving = len(swarm.members) - 1
    wanted = {name: serving if kind == "image.generate" else serving - 1 for kind, name in MODELS.items()}
    with console.status("a few seconds until they have found one another"):
        swarm.start_all()
        swarm.await_providers(asker, wanted)
    console.print(f"all run; {asker.name} submits three jobs to the others")
    names = {member.peer: member.name for member in swarm.members}
    before = ledgers(swarm)
    tasks = _tasks()
    _work(console, asker, tasks, names)
    out.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        _show(console, asker, task, names, out)
    after = _settled_ledgers(swarm)
    total = _balances(console, before, after)
    _ranking(console, asker, names)
    caught = _cheater_caught(tasks, swarm.members[-1].peer)
    console.print(f"\n{_verdict_on_the_cheat(swarm.members[-1].name, caught=caught)}")
    jobs = [
        {
            "kind": task.kind,
            "verdict": task.view["verdict"] or "unaudited",
            "lane": task.lane,
            "receipt_ok": task.receipt_ok,
            "seconds": task.seconds,
            "attempts": [a["verdict"] for a in task.view["attempts"]],
        }
        for task in tasks
    ]
    return {"jobs": jobs, "cheater_caught": caught, "ledger_sum": total}


def _work(console: Console, asker: Any, tasks: list[Task], names: dict[str, str]) -> None:
    """Submit all tasks at once and show their progress until each is final."""

    def tell(task: Task) -> None:
        if not console.is_terminal and task.state != "running":
            console.print(f"  {task.kind:<15} {task.state:<9} {task.detail}".rstrip())

    threads = [threading.Thread(target=_follow, args=(asker, task, names, tell)) for task in tasks]
    for thread in threads:
        thread.start()
    if console.is_terminal:
        with Live(_progress(tasks), console=console, refresh_per_second=8) as live:
            while any(thread.is_alive() for thread in threads):
                time.sleep(0.1)
                live.update(_progress(tasks))
            live.update(_progress(tasks))
    for thread in threads:
        thread.join()
    for task in tasks:
        if task.failure is not None:
            raise task.failure


def _follow(asker: Any, task: Task, names: dict[str, str], tell: Callable[[Task], None]) -> None:
    try:
        _follow_to_the_end(asker, task, names, tell)
    except LocalError as exc:
        task.failure = exc


def _follow_to_the_end(asker: Any, task: Task, names: dict[str, str], tell: Callable[[Task], None]) -> None:
    body = {"kind": task.kind, "model": MODELS[task.kind], "input": task.input, "lane": task.lane, "seed": 7}
    rejected = ""
    with asker.client() as client:
        job_id = client.raw("POST", "/api/v1/jobs", body)["id"]
        for event in client.job(job_id).events():
            data = event.data
            before = (task.state, task.detail)
            if event.type == "matched":
                task.detail = names.get(data["worker"], "?") + rejected
            elif event.type == "running" and "total" in data:
                of = f"/{data['total']}" if data["total"] else ""
                task.detail = f"step {data['done']}{of}{rejected}"
            elif event.type == "auditing" and "jury" in data:
                task.detail = "jury " + " ".join(names.get(peer, "?") for peer in data["jury"])
            elif event.type == "rejected":
                rejected = f" ({names.get(data['worker'], '?')} rejected)"
                task.detail = rejected.strip(" ()")
            elif event.type in STATES[-1:]:
                task.detail = f"{data.get('verdict') or ''}{rejected}"
            task.state = event.type
            if before != (task.state, task.detail) and not (event.type == "auditing" and "jury" not in data):
                tell(task)
        task.view = client.raw("GET", f"/api/v1/jobs/{job_id}")
        task.seconds = task.view["seconds"]


def _progress(tasks: list[Task]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("job", *STATES, ""):
        table.add_column(title, no_wrap=True)
    for task in tasks:
        reached = STATES.index(task.state) if task.state in STATES else -1
        marks = ["[green]●[/green]" if i <= reached else "·" for i in range(len(STATES))]
        table.add_row(task.kind, *marks, task.detail or task.state)
    return table


def _print(console: Console, line: report.Line) -> None:
    """With a hanging indent on a terminal; as it is where programs read it."""
    text = report.wrapped(line.text, console.width) if console.is_terminal else line.text
    console.print(Text(text, style=COLOURS[line.tone]))


def _show(console: Console, asker: Any, task: Task, names: dict[str, str], out: Path) -> None:
    view = task.view
    console.print()
    _print(console, report.headline(view))
    _print(console, report.Line(f"  asked     {_asked(task)}"))
    if view["error"]:
        console.print(f"  [red]{view['error']['code']}[/red]: {view['error']['message']}")
    for line in report.attempts(view, lambda peer: names.get(peer, "?")):
        _print(console, line)
    _save(console, asker, task, names, out)


def _asked(task: Task) -> str:
    given = task.input
    if task.kind == "text.generate":
        return f"go on from {given['prompt']!r}"
    if task.kind == "image.generate":
        return f"draw the digit {given['label']} in {given['steps']} denoising steps"
    return f"embed {', '.join(repr(text) for text in given['texts'])}"


def _save(console: Console, asker: Any, task: Task, names: dict[str, str], out: Path) -> None:
    output = task.view["output"] or {}
    stem = out / task.kind
    with asker.client() as client:
        job = client.job(task.view["id"])
        receipt, answer = Path(f"{stem}.receipt"), Path(f"{stem}.output")
        receipt.write_bytes(_stored(job.receipt()).raw)
        answer.write_bytes(_stored(job.output()))
    if "text" in output:
        for line in report.answer({"text": task.input["prompt"] + output["text"]}):
            _print(console, line)
    if "image" in output:
        _picture(
            console, base64.b64decode(output["image"]["png_base64"]), png(answer.read_bytes(), scale=ENLARGED), stem
        )
    if "embeddings" in output:
        first, *others = output["embeddings"]
        near = ", ".join(f"{_cosine(first, v):.2f} to {t!r}" for v, t in zip(others, TEXTS[1:], strict=True))
        console.print(f"  vectors   {len(output['embeddings'])} of {len(first)} numbers")
        _print(console, report.Line(f"  cosine    of {TEXTS[0]!r}: {near}"))
    task.receipt_ok = _verify(console, task, names, receipt, answer)


def _picture(console: Console, small: bytes, large: bytes, stem: Path) -> None:
    paths = Path(f"{stem}.png"), Path(f"{stem}.large.png")
    for path, raw in zip(paths, (small, large), strict=True):
        path.write_bytes(raw)
    console.print(f"  picture   {paths[0]}")
    console.print(f"            {paths[1]}  ({ENLARGED} times larger)")


def _cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


def _stored(value: T | None) -> T:
    if value is None:
        raise LocalError("the node has no receipt for a job that it settled")
    return value


def _verify(console: Console, task: Task, names: dict[str, str], receipt: Path, answer: Path) -> bool:
    """Verify in another process, one that cannot open a socket; it must agree with what the node said."""
    command = [sys.executable, "-m", "node.offline", str(receipt), "--output", str(answer), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        console.print(f"  receipt   [red]does not verify[/red]: {(done.stdout + done.stderr).strip()[-300:]}")
        return False
    found = json.loads(done.stdout)
    good = bool(found["verdict"] == task.view["verdict"])
    _print(console, report.Line(f"  paid      {_paid(task, names, found)}"))
    said = "verifies offline" if good else "[red]contradicts the node[/red]"
    console.print(f"  receipt   {said}: {receipt}")
    return good


def _paid(task: Task, names: dict[str, str], found: dict[str, Any]) -> str:
    """Who got what for the accepted answer, from its receipt, and what else the job cost."""
    cost = task.view["cost_micro"]
    if found["verdict"] != "accept":
        return f"{cost:,} micro-credits in all"
    jurors = [names.get(j["peer"], "?") for j in found["jurors"] if j["verdict"] in ("accept", "reject")]
    rest = cost - found["price_micro"] - found["fee_micro"] * len(jurors)
    worker = names.get(found["worker"], "?")
    text = f"{found['price_micro']:,} to {worker}, {found['fee_micro']:,} to each of {', '.join(jurors)}"
    return f"{text}{f', and {rest:,} to the jury that rejected' if rest else ''}: {cost:,} micro-credits"


def _settled_ledgers(swarm: Swarm) -> dict[str, dict[str, Any]]:
    """The ledgers once every payee has countersigned, or as they are after ten seconds."""
    deadline = time.monotonic() + 10.0
    while True:
        views = ledgers(swarm)
        if sum(v["balance_micro"] for v in views.values()) == 0 or time.monotonic() > deadline:
            return views
        time.sleep(0.2)


def _balances(console: Console, before: dict[str, Any], after: dict[str, Any]) -> int:
    table = Table(
        title="balances in micro-credits, from each node's own ledger", title_justify="left", box=None, pad_edge=False
    )
    for title in ("node", "before", "after", "entries"):
        table.add_column(title, justify="left" if title == "node" else "right")
    for name, view in after.items():
        table.add_row(name, f"{before[name]['balance_micro']:,}", f"{view['balance_micro']:,}", str(view["height"]))
    total = sum(view["balance_micro"] for view in after.values())
    table.add_row("sum", f"{sum(v['balance_micro'] for v in before.values()):,}", f"{total:,}", "")
    console.print()
    console.print(table)
    return int(total)


def _ranking(console: Console, asker: Any, names: dict[str, str]) -> None:
    with asker.client() as client:
        ranking = client.raw("GET", "/api/v1/ranking")["ranking"]
    console.print(f"\nhow {asker.name} ranks the others (MeritRank on its own view of the ledgers)")
    for row in ranking:
        name = names.get(row["peer"], row["peer"][-8:])
        _print(console, report.Line(f"  {row['rank']}. {name:<5} {row['score']:+.4f}  {row['why']}"))


def _cheater_caught(tasks: list[Task], cheater: str) -> bool:
    """Caught: each image the cheater made was rejected, and it made at least one."""
    made = [a for t in tasks if t.kind == "image.generate" for a in t.view["attempts"] if a["worker"] == cheater]
    return bool(made) and all(a["verdict"] == "reject" for a in made)


def _verdict_on_the_cheat(name: str, *, caught: bool) -> str:
    if not caught:
        return f"[red]{name}'s cheat went unnoticed[/red]"
    return f"[green]{name} was caught[/green]: it skipped denoising steps and was not paid for the picture"


def _finish(console: Console, swarm: Swarm, *, keep: bool) -> None:
    if not keep:
        killed = swarm.stop()
        if killed:
            console.print(f"[yellow]had to kill {', '.join(killed)}[/yellow]")
        return
    found = shutil.which("quorate") or str(Path(sys.executable).with_name("quorate"))
    program = str(Path(found).relative_to(Path.cwd())) if Path(found).is_relative_to(Path.cwd()) else found
    asker = swarm.members[0]
    console.print("\nthe nodes are left running; each is a home that you can use with --home:")
    for member in swarm.members:
        pid = member.process.pid if member.process else 0
        console.print(f"  {member.name}  pid {pid}  {member.home}")
    console.print("for example:")
    console.print(f"  export QUORATE_HOME={asker.home}")
    console.print(f"  {program} job submit image.generate digits-ddim '{{\"label\": 3}}' --out out")
    console.print(f"  {program} peers")
    pids = " ".join(str(m.process.pid) for m in swarm.members if m.process)
    console.print(f"stop them with: kill {pids}; then delete {swarm.root}")
