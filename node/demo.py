"""`quorate demo`: six node processes, three real jobs, one cheat caught, every receipt verified offline.

Everything printed is read back from the nodes through the SDK or computed by a separate process from the
receipt files; nothing is known beforehand but which node was told to cheat.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.live import Live
from rich.table import Table

from node.swarm import Swarm, ledgers, six
from wire.errors import LocalError

STATES = ("queued", "matched", "running", "auditing", "settled")
MODELS = {"text.generate": "bytes-gpt", "image.generate": "digits-ddim", "embed.text": "ngram-embed"}
CHEAT = "fewer-steps"
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


def _tasks() -> list[Task]:
    return [
        Task("text.generate", "exact", {"prompt": "The list of ", "tokens_max": 48, "method": "greedy"}),
        Task("image.generate", "tolerant", {"label": 7, "steps": 30}),
        Task("embed.text", "tolerant", {"texts": ["open a file", "read a file from disk", "a chess opening"]}),
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
    swarm.start_all()
    asker = swarm.members[0]
    serving = len(swarm.members) - 1
    wanted = {name: serving if kind == "image.generate" else serving - 1 for kind, name in MODELS.items()}
    swarm.await_providers(asker, wanted)
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
    console.print(f"\nthe cheat {'was [green]caught[/green]' if caught else '[red]went unnoticed[/red]'}")
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
    threads = [threading.Thread(target=_follow, args=(asker, task, names)) for task in tasks]
    for thread in threads:
        thread.start()
    with Live(_progress(tasks), console=console, refresh_per_second=8, transient=not console.is_terminal) as live:
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.1)
            live.update(_progress(tasks))
        live.update(_progress(tasks))
    if not console.is_terminal:
        console.print(_progress(tasks))


def _follow(asker: Any, task: Task, names: dict[str, str]) -> None:
    body = {"kind": task.kind, "model": MODELS[task.kind], "input": task.input, "lane": task.lane, "seed": 7}
    with asker.client() as client:
        job_id = client.raw("POST", "/api/v1/jobs", body)["id"]
        for event in client.job(job_id).events():
            task.state = event.type
            data = event.data
            if event.type == "matched":
                task.detail = f"worker {names.get(data['worker'], '?')}"
            elif event.type == "running" and "total" in data:
                task.detail = f"{data['done']}/{data['total']}"
            elif event.type == "auditing" and "jury" in data:
                task.detail = "jury " + ", ".join(names.get(peer, "?") for peer in data["jury"])
            elif event.type == "rejected":
                task.detail = f"{names.get(data['worker'], '?')} rejected, trying another"
        task.view = client.raw("GET", f"/api/v1/jobs/{job_id}")
        task.seconds = task.view["seconds"]


def _progress(tasks: list[Task]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("job", *STATES, ""):
        table.add_column(title)
    for task in tasks:
        reached = STATES.index(task.state) if task.state in STATES else -1
        marks = ["[green]●[/green]" if i <= reached else "·" for i in range(len(STATES))]
        table.add_row(task.kind, *marks, task.detail or task.state)
    return table


def _show(console: Console, asker: Any, task: Task, names: dict[str, str], out: Path) -> None:
    view = task.view
    cost = f"cost {view['cost_micro']:,} micro-credits"
    console.print(f"\n[bold]{task.kind}[/bold]  lane {view['lane']}  {task.seconds:.2f} s  {cost}")
    if view["error"]:
        console.print(f"  [red]{view['error']['code']}[/red]: {view['error']['message']}")
    for attempt in view["attempts"]:
        word = attempt["verdict"]
        colour = {"accept": "green", "reject": "red"}.get(word, "yellow")
        worker = names.get(attempt["worker"], "?")
        console.print(f"  [{colour}]{word}[/{colour}]  worker {worker}  {attempt['reason']}")
        for juror in attempt.get("jury", []):
            shown = "  ".join(f"{k} {v:.3g}" for k, v in sorted(juror["distances"].items()))
            console.print(f"      juror {names.get(juror['peer'], '?'):<5} {juror['verdict']:<7} {shown}")
    limits = "  ".join(f"{k} {v:.3g}" for k, v in sorted(view["thresholds"].items()))
    console.print(f"  thresholds  {limits}")
    _save(console, asker, task, out)


def _save(console: Console, asker: Any, task: Task, out: Path) -> None:
    output = task.view["output"] or {}
    stem = out / task.kind
    if "text" in output:
        console.print(f"  text        {output['text']!r}")
    with asker.client() as client:
        job = client.job(task.view["id"])
        if "image" in output:
            path = Path(f"{stem}.png")
            path.write_bytes(base64.b64decode(output["image"]["png_base64"]))
            console.print(f"  picture     {path}")
        if "embeddings" in output:
            console.print(f"  embeddings  {len(output['embeddings'])} of {len(output['embeddings'][0])} numbers")
        receipt, answer = Path(f"{stem}.receipt"), Path(f"{stem}.output")
        receipt.write_bytes(_stored(job.receipt()).raw)
        answer.write_bytes(_stored(job.output()))
    task.receipt_ok = _verify(console, task, receipt, answer)


def _stored(value: T | None) -> T:
    if value is None:
        raise LocalError("the node has no receipt for a job that it settled")
    return value


def _verify(console: Console, task: Task, receipt: Path, answer: Path) -> bool:
    """Verify in another process, one that cannot open a socket; it must agree with what the node said."""
    command = [sys.executable, "-m", "node.offline", str(receipt), "--output", str(answer), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        console.print(f"  receipt     [red]does not verify[/red]: {(done.stdout + done.stderr).strip()[-300:]}")
        return False
    found = json.loads(done.stdout)
    good = bool(found["verdict"] == task.view["verdict"])
    console.print(f"  receipt     {'verifies' if good else 'contradicts the node'} offline: {receipt}")
    return good


def _settled_ledgers(swarm: Swarm) -> dict[str, dict[str, Any]]:
    """The ledgers once every payee has countersigned, or as they are after ten seconds."""
    deadline = time.monotonic() + 10.0
    while True:
        views = ledgers(swarm)
        if sum(v["balance_micro"] for v in views.values()) == 0 or time.monotonic() > deadline:
            return views
        time.sleep(0.2)


def _balances(console: Console, before: dict[str, Any], after: dict[str, Any]) -> int:
    table = Table(title="ledger, micro-credits", title_justify="left", box=None, pad_edge=False)
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
        console.print(f"  {row['rank']}. {name:<5} {row['score']:+.4f}  {row['why']}")


def _cheater_caught(tasks: list[Task], cheater: str) -> bool:
    """Caught: each image the cheater made was rejected, and it made at least one."""
    made = [a for t in tasks if t.kind == "image.generate" for a in t.view["attempts"] if a["worker"] == cheater]
    return bool(made) and all(a["verdict"] == "reject" for a in made)


def _finish(console: Console, swarm: Swarm, *, keep: bool) -> None:
    if not keep:
        killed = swarm.stop()
        if killed:
            console.print(f"[yellow]had to kill {', '.join(killed)}[/yellow]")
        return
    console.print("\nthe nodes are left running; each is a home you can use with --home:")
    for member in swarm.members:
        pid = member.process.pid if member.process else 0
        console.print(f"  {member.name}  pid {pid}  quorate peers --home {member.home}")
    console.print(f"stop them with: kill {' '.join(str(m.process.pid) for m in swarm.members if m.process)}")
