"""The part of CDDL (RFC 8610) that SPEC.md uses, read out of its ```cddl blocks, and a validator for it."""

import re

import cbor

TOKEN = re.compile(
    r"""\s*(?:;[^\n]*\n\s*)*(?P<token>"(?:[^"\\]|\\.)*"|\.\.|=>|\.[a-z]+|[A-Za-z_][A-Za-z0-9_-]*|-?\d+(?:\*\d*)?|\*\d*|[?+:=,/{}\[\]()])""",
)


def blocks(markdown):
    """The text of every cddl block of a Markdown file."""
    return re.findall(r"^```cddl\n(.*?)^```", markdown, re.M | re.S)


class Parser:
    """One rule after the other: `name = type`."""

    def __init__(self, text):
        self.tokens, at = [], 0
        text = text.rstrip() + "\n"
        while at < len(text.rstrip()):
            match = TOKEN.match(text, at)
            if not match:
                raise SyntaxError("CDDL: " + text[at : at + 40])
            self.tokens.append(match.group("token"))
            at = match.end()
        self.at = 0

    def peek(self, ahead=0):
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else None

    def take(self, wanted=None):
        token = self.peek()
        if token is None or (wanted is not None and token != wanted):
            raise SyntaxError(f"CDDL: {wanted} wanted, {token} found near {self.tokens[max(0, self.at - 5):self.at + 3]}")
        self.at += 1
        return token

    def rules(self):
        found = {}
        while self.peek() is not None:
            name = self.take()
            self.take("=")
            if name in found:
                raise SyntaxError(f"CDDL: {name} is there twice")
            found[name] = self.type()
        return found

    def type(self):
        choices = [self.type1()]
        while self.peek() == "/":
            self.take()
            choices.append(self.type1())
        return choices[0] if len(choices) == 1 else ("choice", choices)

    def type1(self):
        left = self.type2()
        token = self.peek()
        if token == "..":
            self.take()
            return ("range", left[1], self.type2()[1])
        if token and token.startswith(".") and token != "..":
            self.take()
            return ("control", token, left, self.type2())
        return left

    def type2(self):
        token = self.take()
        if token == "(":
            inner = self.type()
            self.take(")")
            return inner
        if token in "[{":
            close = "]" if token == "[" else "}"
            entries = []
            while self.peek() != close:
                entries.append(self.entry())
                if self.peek() == ",":
                    self.take()
            self.take(close)
            return ("array" if token == "[" else "map", entries)
        if token[0] == '"':
            return ("literal", re.sub(r"\\(.)", r"\1", token[1:-1]))
        if re.fullmatch(r"-?\d+", token):
            return ("literal", int(token))
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", token):
            return ("name", token)
        raise SyntaxError(f"CDDL: {token} begins no type")

    def entry(self):
        low, high = 1, 1
        token = self.peek()
        if token == "?":
            self.take()
            low, high = 0, 1
        elif token == "+":
            self.take()
            low, high = 1, None
        elif token and "*" in token and token[0] != '"':
            self.take()
            left, right = token.split("*")
            low, high = int(left or 0), int(right) if right else None
        key = None
        if self.peek(1) == ":":
            key = self.take().strip('"')
            self.take()
        elif self.peek(1) == "=>":
            key = self.type2()[1]
            self.take()
        return (low, high, key, self.type())


class Mismatch(Exception):
    """A value that is not of its rule, with the path to the fault."""


class Rules:
    """The rules of a specification; notes which of them a valid value has used."""

    PRIMITIVE = {
        "tstr": lambda value: isinstance(value, str),
        "bstr": lambda value: isinstance(value, bytes),
        "bool": lambda value: isinstance(value, bool),
        "null": lambda value: value is None,
    }

    def __init__(self, markdown):
        self.rules = Parser("\n".join(blocks(markdown))).rules()
        self.used = set()
        for name, rule in self.rules.items():
            for other in self._names(rule):
                if other not in self.rules and other not in self.PRIMITIVE:
                    raise SyntaxError(f"CDDL: {name} uses {other}, which is no rule")

    def _names(self, rule):
        if isinstance(rule, tuple):
            if rule[0] == "name":
                yield rule[1]
            for part in rule[1:]:
                yield from self._names(part)
        elif isinstance(rule, list):
            for part in rule:
                yield from self._names(part)

    def check(self, name, value):
        """Raises Mismatch unless the value is of the rule; notes what it used."""
        used = set()
        self._check(("name", name), value, name, used)
        self.used |= used

    def frame(self, name, data):
        """Decodes bytes as a rule: cbor.Refused with its reason, or `shape` for another shape."""
        value = cbor.decode(data)
        try:
            self.check(name, value)
        except Mismatch as fault:
            raise cbor.Refused("shape") from fault
        return value

    def _check(self, rule, value, path, used):
        kind = rule[0]
        if kind == "name":
            if rule[1] in self.PRIMITIVE:
                if not self.PRIMITIVE[rule[1]](value):
                    raise Mismatch(f"{path}: not {rule[1]}")
                return
            self._check(self.rules[rule[1]], value, path, used)
            used.add(rule[1])
        elif kind == "literal":
            if value != rule[1] or type(value) is not type(rule[1]):
                raise Mismatch(f"{path}: not {rule[1]!r}")
        elif kind == "range":
            if not isinstance(value, int) or isinstance(value, bool) or not rule[1] <= value <= rule[2]:
                raise Mismatch(f"{path}: not in {rule[1]}..{rule[2]}")
        elif kind == "choice":
            faults = []
            for option in rule[1]:
                mine = set()
                try:
                    self._check(option, value, path, mine)
                    used |= mine
                    return
                except Mismatch as fault:
                    faults.append(str(fault))
            raise Mismatch(f"{path}: no choice fits ({'; '.join(faults[:9])})")
        elif kind == "control":
            self._control(rule, value, path, used)
        elif kind == "array":
            self._array(rule[1], value, path, used)
        else:
            self._map(rule[1], value, path, used)

    def _control(self, rule, value, path, used):
        _, operator, left, right = rule
        self._check(left, value, path, used)
        if operator == ".size":
            low, high = (right[1], right[2]) if right[0] == "range" else (right[1], right[1])
            length = len(value.encode("utf-8")) if isinstance(value, str) else len(value)
            if not low <= length <= high:
                raise Mismatch(f"{path}: {length} bytes, not {low} to {high}")
        elif operator == ".regexp":
            if not re.fullmatch(right[1], value, re.ASCII):
                raise Mismatch(f"{path}: not {right[1]}")
        elif operator == ".cbor":
            try:
                inner = cbor.decode(value)
            except cbor.Refused as fault:
                raise Mismatch(f"{path}: embedded CBOR refused: {fault}") from None
            self._check(right, inner, path + ">", used)
        else:
            raise SyntaxError(f"CDDL: {operator} is not known here")

    def _array(self, entries, value, path, used):
        if not isinstance(value, list):
            raise Mismatch(f"{path}: no array")
        at = 0
        for low, high, _, rule in entries:
            count = 0
            while at < len(value) and (high is None or count < high):
                try:
                    mine = set()
                    self._check(rule, value[at], f"{path}[{at}]", mine)
                    used |= mine
                except Mismatch:
                    if count >= low and (low, high) != (1, 1):
                        break
                    raise
                at, count = at + 1, count + 1
            if count < low:
                raise Mismatch(f"{path}: {count} entries, at least {low} wanted")
        if at != len(value):
            raise Mismatch(f"{path}: {len(value)} entries, {at} fit")

    def _map(self, entries, value, path, used):
        if not isinstance(value, cbor.Map):
            raise Mismatch(f"{path}: no map")
        left = len(value.pairs)
        for low, _, key, rule in entries:
            if value.has(key):
                self._check(rule, value.get(key), f"{path}.{key}", used)
                left -= 1
            elif low:
                raise Mismatch(f"{path}: {key} is missing")
        if left:
            raise Mismatch(f"{path}: unknown keys")
