"""Inputs of the real programs, made from seeds, so that nothing need be kept or fetched."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path


def statements(count: int) -> str:
    """Return SQL that fills two tables of ``count`` rows, indexes, joins, changes and sums them."""
    draw = random.Random(11)
    lines = ["CREATE TABLE person(id INTEGER PRIMARY KEY, name TEXT, town TEXT);",
             "CREATE TABLE bill(id INTEGER PRIMARY KEY, person INTEGER, sum REAL, note TEXT);",
             "BEGIN;"]
    towns = ["".join(draw.choices("abcdefgh", k=6)) for _ in range(200)]
    for number in range(count):
        name = "".join(draw.choices("klmnopqrstuvw", k=draw.randint(4, 14)))
        lines.append(f"INSERT INTO person VALUES({number},'{name}','{draw.choice(towns)}');")
        lines.append(f"INSERT INTO bill VALUES({number},{draw.randrange(count)},"
                     f"{draw.random() * 900:.2f},'{'n' * draw.randint(0, 60)}');")
    lines += ["COMMIT;", "CREATE INDEX by_town ON person(town);",
              "CREATE INDEX by_person ON bill(person);",
              "SELECT town, count(*), sum(sum) FROM person JOIN bill ON bill.person = person.id "
              "GROUP BY town ORDER BY 3 DESC;",
              "UPDATE bill SET note = note || person WHERE sum < 300;",
              "SELECT upper(name) || group_concat(note) FROM person JOIN bill ON bill.person = "
              "person.id GROUP BY name;",
              "DELETE FROM bill WHERE sum > 600;", "SELECT count(DISTINCT note) FROM bill;"]
    return "\n".join(lines) + "\n"


def c_source(functions: int) -> str:
    """Return a C translation unit without includes: loops, branches, calls, structures."""
    draw = random.Random(12)
    lines = ["struct node { struct node *next; int key, weight; double value[4]; };"]
    for number in range(functions):
        body = [f"static int f{number}(struct node *list, int a, int b)", "{", "    int sum = a;",
                f"    for (struct node *n = list; n; n = n->next) {{ sum += n->key * {number + 1};"]
        for _ in range(draw.randint(3, 8)):
            one, two = draw.choice("ab"), draw.randrange(1, 99)
            body.append(f"        if (sum % {two} < {one} + {draw.randrange(50)}) "
                        f"{{ n->weight ^= sum + {two}; sum -= {one} << {draw.randrange(8)}; }}")
            body.append(f"        n->value[{draw.randrange(4)}] *= {draw.random():.3f} * sum;")
        body.append("    }")
        if number:
            body.append(f"    sum += f{draw.randrange(number)}(list, b, sum);")
        lines += [*body, "    return sum;", "}"]
    calls = " + ".join(f"f{number}(list, {number}, b)" for number in range(functions))
    return "\n".join([*lines, f"int all(struct node *list, int b) {{ return {calls}; }}"]) + "\n"


def cxx_source(kinds: int) -> str:
    """Return a C++ translation unit that instantiates the containers with many types."""
    lines = [f"#include <{name}>" for name in
             ("algorithm", "functional", "map", "memory", "regex", "string", "unordered_map",
              "vector")]
    for number in range(kinds):
        lines.append(f"""
struct kind{number} {{
    std::string name;
    std::vector<std::shared_ptr<kind{number}>> parts;
    bool operator<(const kind{number} &other) const {{ return name < other.name; }}
}};
std::size_t use{number}(std::vector<kind{number}> all)
{{
    std::map<kind{number}, std::vector<int>> tree;
    std::unordered_map<std::string, kind{number}> table;
    std::sort(all.begin(), all.end());
    for (auto &one : all) {{
        tree[one].push_back({number});
        table.emplace(one.name, one);
    }}
    std::function<bool(const kind{number} &)> wanted = [&](const kind{number} &one) {{
        return std::regex_search(one.name, std::regex("{number}.*"));
    }};
    return tree.size() + table.size() + std::count_if(all.begin(), all.end(), wanted);
}}""")
    return "\n".join(lines) + "\n"


def document(count: int) -> str:
    """Return a JSON array of ``count`` nested objects."""
    draw = random.Random(13)
    return json.dumps([
        {"id": number, "name": "".join(draw.choices("abcdefghij", k=draw.randint(3, 12))),
         "group": draw.randrange(100), "scores": [draw.randrange(1000) for _ in range(6)],
         "nested": {"flag": draw.random() < 0.5, "text": "x" * draw.randint(0, 40)}}
        for number in range(count)])


FILTER = ("map({group, text: (.name | explode | map(. + 1) | implode), "
          "key: ([.scores[] | tostring] | join(\"-\"))}) | group_by(.group) | "
          "map({group: .[0].group, all: (map(tojson) | map(fromjson) | length)}) | .[] | tojson")
"""The program for jq."""


def write(folder: Path) -> None:
    """Write every input into ``folder``: work.sql, work.i, work.ii, work.json."""
    (folder / "work.sql").write_text(statements(25000))
    (folder / "work.i").write_text(c_source(12))
    (folder / "work.cc").write_text(cxx_source(1))
    (folder / "work.json").write_text(document(12000))
    if shutil.which("g++"):
        # preprocessed, so that the compiler proper has no header files to search for
        subprocess.run(["g++", "-E", "-o", folder / "work.ii", folder / "work.cc"], check=True)
