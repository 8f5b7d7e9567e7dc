"""Summarise a web server's access log: requests, errors, bytes and response times per route.

    python access_log.py access.log --slowest 5

Numbers in paths are folded into one route (`/users/17` and `/users/42` become `/users/{n}`), so that
the table has one row per handler and not one per customer. Lines that can't be parsed are counted and
reported, never skipped in silence.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Iterable, Iterator, TextIO

LINE = re.compile(
    r"(?P<client>\S+) \S+ \S+ \[(?P<time>[^\]]+)\] "
    r'"(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[\d.]+" '
    r"(?P<status>\d{3}) (?P<size>\d+|-) (?P<seconds>\d+\.\d+)$"
)
NUMBER = re.compile(r"(?<=/)\d+(?=/|$)")


@dataclass
class Request:
    method: str
    route: str
    status: int
    size: int
    seconds: float


@dataclass
class Route:
    requests: int = 0
    failures: int = 0
    size: int = 0
    seconds: list[float] = field(default_factory=list)

    def add(self, request: Request) -> None:
        self.requests += 1
        self.size += request.size
        self.seconds.append(request.seconds)
        if request.status >= 500:
            self.failures += 1


def route_of(path: str) -> str:
    """The path without its query, with numbers replaced by a placeholder."""
    bare = path.split("?", 1)[0]
    return NUMBER.sub("{n}", bare) or "/"


def parse(lines: Iterable[str]) -> Iterator[Request | None]:
    """One request per line, or None for a line that isn't one."""
    for line in lines:
        match = LINE.match(line.rstrip("\n"))
        if match is None:
            yield None
            continue
        size = match["size"]
        yield Request(
            method=match["method"],
            route=route_of(match["path"]),
            status=int(match["status"]),
            size=0 if size == "-" else int(size),
            seconds=float(match["seconds"]),
        )


def quantile(values: list[float], q: float) -> float:
    """The smallest value that at least a share q of the values does not exceed."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    rank = max(1, math.ceil(q * len(ordered)))
    return ordered[rank - 1]


def summarise(lines: Iterable[str]) -> tuple[dict[str, Route], int]:
    routes: dict[str, Route] = defaultdict(Route)
    unreadable = 0
    for request in parse(lines):
        if request is None:
            unreadable += 1
        else:
            routes[f"{request.method} {request.route}"].add(request)
    return dict(routes), unreadable


def human(size: int) -> str:
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def write_table(routes: dict[str, Route], slowest: int, out: TextIO) -> None:
    rows = sorted(routes.items(), key=lambda item: -quantile(item[1].seconds, 0.95))
    out.write(f"{'route':<40} {'requests':>9} {'5xx':>6} {'sent':>10} {'median':>9} {'p95':>9}\n")
    for name, route in rows[:slowest]:
        share = route.failures / route.requests
        out.write(
            f"{name:<40} {route.requests:>9} {share:>6.1%} {human(route.size):>10} "
            f"{quantile(route.seconds, 0.5):>8.3f}s {quantile(route.seconds, 0.95):>8.3f}s\n"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", help="the file to read, or - for standard input")
    parser.add_argument("--slowest", type=int, default=20, help="how many routes to show")
    arguments = parser.parse_args()

    if arguments.log == "-":
        routes, unreadable = summarise(sys.stdin)
    else:
        try:
            with open(arguments.log, encoding="utf-8", errors="replace") as lines:
                routes, unreadable = summarise(lines)
        except OSError as error:
            print(f"error: {arguments.log}: {error.strerror}", file=sys.stderr)
            return 2

    write_table(routes, arguments.slowest, sys.stdout)
    if unreadable:
        print(f"{unreadable} lines could not be read", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
