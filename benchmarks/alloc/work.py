# SPDX-License-Identifier: MIT
"""A Python program as they are: text, dictionaries, objects, sorting, JSON. No input but a seed."""

import json
import random
import re
import sys
from collections import Counter, defaultdict


class Order:
    """A line of an order book."""

    __slots__ = ("buyer", "item", "price", "tags")

    def __init__(self, buyer: str, item: int, price: float, tags: list[str]) -> None:
        self.buyer, self.item, self.price, self.tags = buyer, item, price, tags


def main(count: int) -> None:
    """Make ``count`` orders and look at them from several sides."""
    draw = random.Random(7)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(3, 9))) for _ in range(2000)]
    orders = [Order(draw.choice(words), draw.randrange(5000), draw.random() * 100,
                    draw.sample(words, draw.randint(1, 5))) for _ in range(count)]
    by_buyer: dict[str, list[Order]] = defaultdict(list)
    for order in orders:
        by_buyer[order.buyer].append(order)
    totals = {buyer: sum(order.price for order in some) for buyer, some in by_buyer.items()}
    text = json.dumps([{"buyer": order.buyer, "price": round(order.price, 2), "tags": order.tags}
                       for order in orders])
    tags = Counter(tag for one in json.loads(text) for tag in one["tags"])
    longest = sorted(re.findall(r'"([a-z]{6,})"', text), key=lambda word: (len(word), word))[-1]
    matrix = [[row * column % 97 for column in range(120)] for row in range(120)]
    turned = [list(column) for column in zip(*matrix, strict=True)]
    print(len(totals), tags.most_common(1), longest, sum(map(sum, turned)))


main(int(sys.argv[1]))
