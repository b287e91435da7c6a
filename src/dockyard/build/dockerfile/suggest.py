"""The nearest valid word, and the picture of the line that is wrong."""

from __future__ import annotations

from collections.abc import Iterable

from .parser import INSTRUCTIONS, SyntaxProblem

__all__ = ["did_you_mean", "explain"]


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """`` (did you mean X?)`` or nothing."""
    import difflib  # costs 4 ms; only errors pay

    near = difflib.get_close_matches(word.lower(), {v.lower(): v for v in valid}, n=1, cutoff=0.6)
    return f" (did you mean {next(v for v in valid if v.lower() == near[0])}?)" if near else ""


def explain(problem: SyntaxProblem, name: str, lines: tuple[str, ...]) -> str:
    """Docker's sentence first (clients match on it), then file:line:column and the line with a mark below."""
    text = problem.text
    if text.startswith("unknown instruction: "):
        text += did_you_mean(problem.word, INSTRUCTIONS)
    if not problem.line:
        return f"dockerfile parse error: {text}" if lines else text
    head = f"dockerfile parse error on line {problem.line}: {text}"
    if problem.line > len(lines):
        return head
    line, number = lines[problem.line - 1].rstrip("\r"), problem.line
    column = line.lower().find(problem.word.lower()) if problem.word else -1
    for later in range(problem.line, min(len(lines), problem.line + 40)):  # the word may stand on a continuation line
        if column >= 0 or not problem.word:
            break
        column = lines[later].lower().find(problem.word.lower())
        if column >= 0:
            line, number = lines[later].rstrip("\r"), later + 1
    if column < 0:
        column = len(line) - len(line.lstrip())
    width = max(1, len(problem.word))
    pad = "".join("\t" if c == "\t" else " " for c in line[:column])
    return f"{head}\n{name}:{number}:{column + 1}\n{number:>5} | {line}\n      | {pad}{'^' * width}"
