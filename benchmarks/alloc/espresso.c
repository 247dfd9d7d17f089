/* SPDX-License-Identifier: MIT */
/* espresso: a two-level logic minimiser; bursts of small blocks, gone again level by level.
 *
 * A function of several outputs is a list of terms; per input a term wants 0, 1 or either. EXPAND
 * drops a wish of a term wherever the function still covers it, IRREDUNDANT drops terms that the
 * others cover (Brayton et al. 1984). Covered means that the cofactor is a tautology, which is
 * found by recursion on the input most terms disagree about; every cofactor is a list of its own.
 *
 *   espresso PRIMES SEED
 *
 * The function is made from the seed: random terms, each broken into pieces, all of them shuffled.
 * Prints the numbers of terms before and after. */
#include "pattern.h"

enum { INPUTS = 16, OUTPUTS = 16, SPLITS = 3, FEWEST_WISHES = 3, MOST_WISHES = 8 };

struct term {
    struct term *next;
    uint32_t zero, one; /* inputs that may be 0, and that may be 1 */
    uint64_t outputs;
    uint32_t wishes; /* inputs that may not be both */
    uint32_t mark;
};

struct list {
    struct term *first;
    struct term **end;
    size_t count;
};

static const uint32_t ALL = (1U << INPUTS) - 1;

static struct list *list_new(void)
{
    struct list *list = must(malloc(sizeof *list));
    *list = (struct list){.end = &list->first};
    return list;
}

static struct term *append(struct list *list, uint32_t zero, uint32_t one, uint64_t outputs)
{
    struct term *term = must(malloc(sizeof *term));
    *term = (struct term){.zero = zero,
                          .one = one,
                          .outputs = outputs,
                          .wishes = (uint32_t)__builtin_popcount(ALL & ~(zero & one))};
    *list->end = term;
    list->end = &term->next;
    list->count++;
    return term;
}

static void list_free(struct list *list)
{
    for (struct term *term = list->first, *next; term; term = next) {
        next = term->next;
        free(term);
    }
    free(list);
}

/* What is left of the terms that meet a cube and have the output: the wishes outside of it. */
static struct list *cofactor(const struct list *list, uint32_t zero, uint32_t one, uint64_t output,
                             const struct term *but)
{
    struct list *rest = list_new();
    for (const struct term *term = list->first; term; term = term->next)
        if (term != but && term->outputs & output && !term->mark &&
            ((term->zero & zero) | (term->one & one)) == ALL)
            append(rest, (term->zero | ~zero) & ALL, (term->one | ~one) & ALL, output);
    return rest;
}

/* How many terms want 0, and want 1, of each input. */
static void count_wishes(const struct list *list, uint32_t zeros[INPUTS], uint32_t ones[INPUTS])
{
    memset(zeros, 0, INPUTS * sizeof zeros[0]);
    memset(ones, 0, INPUTS * sizeof ones[0]);
    for (const struct term *term = list->first; term; term = term->next)
        for (int input = 0; input < INPUTS; input++) {
            zeros[input] += ~term->one >> input & 1;
            ones[input] += ~term->zero >> input & 1;
        }
}

/* The input to split at: most wishes among those that are wanted both ways; -1: there is none, and
 * then only a term without any wish makes a tautology. */
static int most_binate(const struct list *list)
{
    uint32_t zeros[INPUTS], ones[INPUTS], most = 0;
    int best = -1;
    count_wishes(list, zeros, ones);
    for (int input = 0; input < INPUTS; input++)
        if (zeros[input] && ones[input] && zeros[input] + ones[input] > most) {
            most = zeros[input] + ones[input];
            best = input;
        }
    return best;
}

/* Whether the terms can cover all points by their number alone: 2^(INPUTS - wishes) each. */
static int large_enough(const struct list *list)
{
    uint64_t points = 0;
    for (const struct term *term = list->first; term; term = term->next)
        points += UINT64_C(1) << (INPUTS - term->wishes);
    return points >> INPUTS != 0;
}

/* Depth is bounded by INPUTS: an input that was split at is wanted by no term any more. */
static int tautology(const struct list *list)
{
    for (const struct term *term = list->first; term; term = term->next)
        if (!term->wishes)
            return 1;
    if (!large_enough(list))
        return 0;
    int input = most_binate(list);
    if (input < 0)
        return 0;
    for (int value = 0; value < 2; value++) {
        uint32_t bit = 1U << input;
        struct list *half =
            cofactor(list, value ? ALL & ~bit : ALL, value ? ALL : ALL & ~bit, ~UINT64_C(0), NULL);
        int covered = tautology(half);
        list_free(half);
        if (!covered)
            return 0;
    }
    return 1;
}

/* Whether the list, `but` one of its terms, covers a cube in all the outputs. */
static int covers(const struct list *list, uint32_t zero, uint32_t one, uint64_t outputs,
                  const struct term *but)
{
    for (; outputs; outputs &= outputs - 1) {
        struct list *rest = cofactor(list, zero, one, outputs & -outputs, but);
        int covered = tautology(rest);
        list_free(rest);
        if (!covered)
            return 0;
    }
    return 1;
}

static void expand(struct list *list)
{
    for (struct term *term = list->first; term; term = term->next)
        for (int input = 0; input < INPUTS; input++) {
            uint32_t bit = 1U << input;
            if (term->zero & term->one & bit)
                continue;
            /* what is new is the other half: the term with the wish turned round */
            if (covers(list, (term->zero ^ bit), (term->one ^ bit), term->outputs, NULL)) {
                term->zero |= bit;
                term->one |= bit;
                term->wishes--;
            }
        }
}

/* Terms are marked as gone at once and removed at the end. */
static void irredundant(struct list *list)
{
    for (struct term *term = list->first; term; term = term->next)
        if (covers(list, term->zero, term->one, term->outputs, term))
            term->mark = 1;
    for (struct term **place = &list->first; *place;) {
        struct term *term = *place;
        if (term->mark) {
            *place = term->next;
            list->count--;
            free(term);
        } else {
            place = &term->next;
        }
    }
}

/* Breaks a term into 2^depth pieces. */
static void shatter(struct list *list, uint32_t zero, uint32_t one, uint64_t outputs, int depth,
                    uint64_t *rng)
{
    uint32_t both = zero & one, bit;
    if (!depth || !both) {
        append(list, zero, one, outputs);
        return;
    }
    do
        bit = 1U << random_below(rng, INPUTS);
    while (!(both & bit));
    shatter(list, zero & ~bit, one, outputs, depth - 1, rng);
    shatter(list, zero, one & ~bit, outputs, depth - 1, rng);
}

static void shuffle(struct list *list, uint64_t *rng)
{
    struct term **all = must(malloc(list->count * sizeof *all));
    size_t count = 0;
    for (struct term *term = list->first; term; term = term->next)
        all[count++] = term;
    list->end = &list->first;
    for (; count > 0; count--) {
        size_t pick = random_below(rng, (uint32_t)count);
        *list->end = all[pick];
        list->end = &all[pick]->next;
        all[pick] = all[count - 1];
    }
    *list->end = NULL;
    free(all);
}

static struct list *random_function(size_t primes, uint64_t seed)
{
    struct list *list = list_new();
    uint64_t rng = random_seed(seed);
    for (size_t n = 0; n < primes; n++) {
        uint32_t zero = ALL, one = ALL;
        uint32_t wishes = FEWEST_WISHES + random_below(&rng, MOST_WISHES - FEWEST_WISHES + 1);
        while ((uint32_t)__builtin_popcount(ALL & ~(zero & one)) < wishes) {
            uint32_t bit = 1U << random_below(&rng, INPUTS);
            if (zero & one & bit)
                *(random_below(&rng, 2) ? &zero : &one) &= ~bit;
        }
        uint64_t outputs = (UINT64_C(1) << random_below(&rng, OUTPUTS)) |
                           (UINT64_C(1) << random_below(&rng, OUTPUTS));
        shatter(list, zero, one, outputs, SPLITS, &rng);
    }
    shuffle(list, &rng);
    return list;
}

int main(int count, char **values)
{
    struct list *list =
        random_function(argument(count, values, 1, 150), argument(count, values, 2, 1));
    size_t before = list->count;
    expand(list);
    irredundant(list);
    printf("%zu terms, %zu after\n", before, list->count);
    list_free(list);
    return 0;
}
