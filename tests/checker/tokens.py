"""Normalisation norm-1 and match tokens: SPEC.md sections 7.1 and 7.2."""

import unicodedata

LETTERS = {"ß": "SS", "ẞ": "SS", "æ": "AE", "Æ": "AE", "œ": "OE", "Œ": "OE", "þ": "TH", "Þ": "TH", "ø": "O", "Ø": "O"}
LETTERS |= {"ł": "L", "Ł": "L", "đ": "D", "Đ": "D", "ð": "D", "Ð": "D", "ı": "I"}
NOTHING = set("'’‘`ʼ") | {chr(code) for code in range(0x300, 0x370)}
SPACE = set("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {chr(code) for code in range(0x2000, 0x200B)}
DIGITS = "0123456789"


def size(text):
    return len(text.encode("utf-8"))


def trim(text):
    while text and text[0] in SPACE:
        text = text[1:]
    while text and text[-1] in SPACE:
        text = text[:-1]
    return text


def is_word(char):
    """Alphabetic or numeric. Python has no property Alphabetic: marks and signs of which it is not sure stop the check."""
    category = unicodedata.category(char)
    if category in ("Mn", "Mc", "So") and char not in NOTHING:
        raise NotImplementedError(f"whether U+{ord(char):04X} is alphabetic cannot be told here")
    return category[0] == "L" or category in ("Nd", "Nl", "No")


def fold(text):
    out = ""
    for char in unicodedata.normalize("NFKD", text[:120]):
        if char in LETTERS:
            out += LETTERS[char]
        elif char in NOTHING:
            pass
        elif is_word(char):
            out += char.upper()
        elif out and not out.endswith(" "):
            out += " "
    return out.rstrip(" ")


def words(text):
    return [word for word in text.split(" ") if word]


def first_eight(values):
    kept = []
    for value in values:
        if value is not None and value not in kept and len(kept) < 8:
            kept.append(value)
    return kept


def repeated(text):
    return len(set(text)) == 1


def sound(text):
    codes = {}
    for digit, letters in (("1", "BFPV"), ("2", "CGJKQSXZ"), ("3", "DT"), ("4", "L"), ("5", "MN"), ("6", "R")):
        codes |= dict.fromkeys(letters, digit)
    letters = [char for char in text if "A" <= char <= "Z"]
    if not letters:
        return ""
    out, last = letters[0], codes.get(letters[0])
    for letter in letters[1:]:
        if letter in "HW":
            continue
        code = codes.get(letter)
        if code and code != last:
            out += code
        last = code
    return (out + "000")[:4]


class Profile:
    """The tables of norm-1 and what they do."""

    def __init__(self, tables):
        self.tables = tables

    def roots(self, given):
        found = [root for root, short in self.tables["nicknames"] if root == given or given in short][:3]
        return found or [given]

    def name(self, name):
        found = None

        def kept(text):
            nonlocal found
            out = []
            for word in words(fold(text)):
                if word in self.tables["suffixes"] and out:
                    found = self.tables["suffixes"][word]
                elif word not in self.tables["titles"]:
                    out.append("".join(char for char in word if char not in DIGITS))
            return [word for word in out if word]

        families = kept(name.get("family"))
        givens = [word for text in name.get("given")[:8] for word in kept(text)]
        if not families and not givens:
            return None
        stated = next((self.tables["suffixes"][word] for word in words(fold(name.get("suffix") or "")) if word in self.tables["suffixes"]), None)
        family, given = "".join(families), givens[0] if givens else ""
        parts = [word for word in families if size(word) > 1 and word not in self.tables["particles"]]
        placeholder = family == "DOE" and given in ("JOHN", "JANE")
        placeholder |= any(text in self.tables["placeholders"] for text in (family, given, "".join(givens)))
        return {"family": family, "parts": parts if len(parts) > 1 else [], "given": given, "middle": givens[1:], "suffix": stated or found, "placeholder": placeholder}

    @staticmethod
    def birth(text):
        if text is None:
            return None
        raw = trim(text).encode("utf-8")[:10]
        try:
            fields = raw.decode("utf-8").split("-")
        except UnicodeDecodeError:
            return None
        if len(fields) > 3 or any(len(field) != want or not set(field) <= set(DIGITS) for field, want in zip(fields, (4, 2, 2))):
            return None
        numbers = [int(field) for field in fields]
        year, month, day = (numbers + [None, None])[:3]
        if not 1870 <= year <= 2120 or year == 1900:
            return None
        if month is not None and not 1 <= month <= 12:
            return None
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        days = [31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        if day is not None and not 1 <= day <= days[month - 1]:
            return None
        return year, month, day

    @staticmethod
    def identifier(system, value):
        system = trim(system).rstrip("/")
        value = fold(value).replace(" ", "")
        lower = "".join(char.lower() if char.isascii() else char for char in system)
        oid = lower.removeprefix("urn:oid:")
        if lower.endswith("/us-ssn") or oid == "2.16.840.1.113883.4.1":
            kind = "social"
        elif oid.startswith("2.16.840.1.113883.4.3.") or "licen" in lower:
            kind = "licence"
        elif lower.endswith(("/us-medicare", "/us-mbi")) or "insurance" in lower or "subscriber" in lower:
            kind = "insurance"
        else:
            kind = "other"
        if not 1 <= size(system) <= 120 or size(value) < 3 or repeated(value):
            return None
        if value in ("123456789", "987654321", "078051120", "UNKNOWN", "NONE", "TEST"):
            return None
        if kind == "social":
            if not set(value) <= set(DIGITS) or len(value) not in (4, 9):
                return None
            if len(value) == 9 and (value.startswith(("000", "666")) or value.endswith("0000")):
                return None
        return kind, system, value

    def address(self, address):
        house, street = None, ""
        lines = address.get("lines")
        for word in words(fold(lines[0])) if lines else []:
            if word in self.tables["unit words"] and street:
                break
            if house is None and word[0] in DIGITS:
                house = word
            else:
                street += self.tables["street words"].get(word, word)
        postal = fold(address.get("postal_code") or "").replace(" ", "")[:5]
        if size(postal) < 4 or postal in ("00000", "99999", "0000"):
            postal = None
        city = fold(address.get("city") or "").replace(" ", "")
        if (not street and postal is None) or street in ("HOMELESS", "UNKNOWN", "GENERALDELIVERY"):
            return None
        return house, street, city, postal

    @staticmethod
    def email(text):
        text = trim(text).lower().removeprefix("mailto:")
        user, _, host = text.partition("@")
        fits = lambda part: part and all(char in ".-_+" or is_word(char) for char in part)
        if not fits(user) or not fits(host) or size(text) > 120 or user in ("none", "na", "noemail", "unknown", "test"):
            return None
        return text

    @staticmethod
    def phone(text):
        number = [char for char in text if char in DIGITS][:20][-10:]
        number = "".join(number)
        if len(number) < 7 or repeated(number) or repeated(number[-7:]) or number[-7:] == "1234567":
            return None
        return number

    def normal(self, person):
        telecoms = person.get("telecoms")
        return {
            "names": first_eight(self.name(name) for name in person.get("names")),
            "birth": self.birth(person.get("birth_date")),
            "identifiers": first_eight(self.identifier(one.get("system"), one.get("value")) for one in person.get("identifiers")),
            "addresses": first_eight(self.address(one) for one in person.get("addresses")),
            "emails": first_eight(self.email(text) for text in telecoms if "@" in text),
            "phones": first_eight(self.phone(text) for text in telecoms if "@" not in text),
        }

    ORDER = ["N", "I1", "J1", "K", "A", "B3", "M", "G", "G3", "H", "H2", "C2", "I6", "L2", "E2", "F"]

    def tokens(self, person, epoch, limit):
        normal, found = self.normal(person), set()

        def add(kind, *fields):
            if all(fields):
                text = "|".join(["hie-tok", "norm-1", kind, str(epoch)] + [field.replace("|", "/") for field in fields])
                found.add((self.ORDER.index(kind), text.encode("utf-8")))

        birth = normal["birth"]
        year = f"{birth[0]:04}" if birth else ""
        date = f"{birth[0]:04}{birth[1]:02}{birth[2]:02}" if birth and birth[2] is not None else ""
        phones = [phone for phone in normal["phones"] if len(phone) == 10]
        for kind, system, value in normal["identifiers"]:
            if kind == "social" and len(value) == 9:
                add("I1", value, year)
            elif kind == "licence":
                add("J1", system, value, year)
            elif kind == "insurance":
                add("K", value, date)
            elif kind == "other" and size(value) >= 8:
                add("N", system, value, year)
        for phone in phones:
            add("G3", phone, date[:6])
        for email in normal["emails"]:
            add("H2", email, date)
        for name in normal["names"]:
            if name["placeholder"]:
                continue
            given, initial = name["given"], name["given"][:1]
            long = size(given) > 1
            roots = self.roots(given) if long else []
            for family in [name["family"]] + name["parts"]:
                add("A", family, initial, date)
                if long:
                    add("B3", sound(family), sound(given), date)
                for root in roots:
                    add("E2", family, root, year)
                    add("F", family, root, date[4:])
                    add("M", *sorted([family, root], key=lambda text: text.encode("utf-8")), date)
            for kind, _, value in normal["identifiers"]:
                if kind == "social":
                    add("I6", value[-4:], date, initial)
            for root in roots:
                for phone in phones:
                    add("G", phone, root)
                for email in normal["emails"]:
                    add("H", email, root)
                for house, street, _, postal in normal["addresses"]:
                    add("C2", root, date, postal or "")
                    add("L2", house or "", sound(street), postal or "", root)
        return [text.decode("utf-8") for _, text in sorted(found)][:limit]
