/* SPDX-License-Identifier: MIT */
/* cfrac: factors a number by its continued fraction (Morrison and Brillhart 1975), with numbers
 * that are allocated by every operation: very many small blocks of short life.
 *
 * The expansion of the square root of kN yields A and Q with A^2 = +-Q mod N and Q < 2 sqrt(kN).
 * Those Q that the small primes of the factor base divide completely are kept, with the parities of
 * their exponents as a row of bits; rows that add up to zero (Gauss) give X^2 = Y^2 mod N.
 *
 *   cfrac NUMBER */
#include "bignum.h"

enum { PRIMES_MAX = 512, ROW_WORDS = PRIMES_MAX / 64 + 1, RELATIONS_MAX = PRIMES_MAX + 20 };

struct relation {
    struct number *a; /* A */
    struct number *q; /* the Q whose square root is sought, times the sign of the row's first bit */
    uint64_t row[ROW_WORDS];     /* bit 0: the sign, bit n: the n-th prime, odd exponents */
    uint64_t members[ROW_WORDS]; /* relations that were added up to this one */
};

static struct number *n, *kn;
static uint32_t primes[PRIMES_MAX], prime_count;
static struct relation relations[RELATIONS_MAX];
static size_t relation_count;

static uint32_t power_modulo(uint32_t base, uint32_t exponent, uint32_t modulus)
{
    uint64_t result = 1, square = base % modulus;
    for (; exponent; exponent >>= 1, square = square * square % modulus)
        if (exponent & 1)
            result = result * square % modulus;
    return (uint32_t)result;
}

/* The primes that can divide a Q: 2, and those of which kN is a square. */
static void choose_primes(uint32_t count)
{
    prime_count = 0;
    primes[prime_count++] = 2;
    for (uint32_t candidate = 3; prime_count < count; candidate += 2) {
        int prime = 1;
        for (uint32_t d = 3; d * d <= candidate && prime; d += 2)
            prime = candidate % d != 0;
        if (!prime)
            continue;
        uint32_t rest = remainder_small(kn, candidate);
        if (!rest || power_modulo(rest, candidate / 2, candidate) == 1)
            primes[prime_count++] = candidate;
    }
}

/* Divides q by the factor base; true, and the row, if nothing is left. */
static int smooth(const struct number *q, uint64_t row[ROW_WORDS])
{
    struct number *rest = copy(q);
    for (uint32_t p = 0; p < prime_count && !is_small(rest, 1);) {
        uint32_t left;
        struct number *quotient = divide_small(rest, primes[p], &left);
        if (left) {
            free(quotient);
            p++;
        } else {
            assign(&rest, quotient);
            row[(p + 1) / 64] ^= UINT64_C(1) << (p + 1) % 64;
        }
    }
    int done = is_small(rest, 1);
    free(rest);
    return done;
}

/* Whether X^2 = Y^2 of the members of a zero row splits N; prints a factor if so. */
static int splits(const struct relation *zero)
{
    struct number *x = from_small(1), *y = from_small(1), *pending = from_small(1);
    for (size_t i = 0; i < relation_count; i++) {
        if (!(zero->members[i / 64] >> i % 64 & 1))
            continue;
        struct number *common = gcd(pending, relations[i].q);
        assign(&x, multiply_modulo(x, relations[i].a, n));
        assign(&y, multiply_modulo(y, common, n));
        /* what is not common yet stays pending: its square root is not known so far */
        struct number *left = divide(pending, common, NULL);
        struct number *right = divide(relations[i].q, common, NULL);
        assign(&pending, multiply(left, right));
        free(left);
        free(right);
        free(common);
    }
    struct number *root = square_root(pending), *sum;
    assign(&y, multiply_modulo(y, root, n));
    sum = add(x, y);
    struct number *factor = gcd(sum, n);
    int found = !is_small(factor, 1) && compare(factor, n);
    if (found)
        print(factor);
    free(x);
    free(y);
    free(pending);
    free(root);
    free(sum);
    free(factor);
    return found;
}

static int add_relation(const struct number *a, const struct number *q, const uint64_t *row)
{
    struct relation *fresh = &relations[relation_count];
    *fresh = (struct relation){.a = copy(a), .q = copy(q)};
    memcpy(fresh->row, row, sizeof fresh->row);
    fresh->members[relation_count / 64] |= UINT64_C(1) << relation_count % 64;
    for (size_t i = 0; i < relation_count; i++) {
        struct relation *pivot = &relations[i];
        for (int word = 0; word < ROW_WORDS; word++) {
            if (!pivot->row[word])
                continue;
            if (fresh->row[word] & (pivot->row[word] & -pivot->row[word]))
                for (int k = 0; k < ROW_WORDS; k++) {
                    fresh->row[k] ^= pivot->row[k];
                    fresh->members[k] ^= pivot->members[k];
                }
            break;
        }
    }
    relation_count++;
    for (int word = 0; word < ROW_WORDS; word++)
        if (fresh->row[word])
            return 0;
    return splits(fresh);
}

struct expansion {
    struct number *root;             /* floor of the square root of kN */
    struct number *p, *q, *q_before; /* (root + P) / Q is the complete quotient */
    struct number *a, *a_before;     /* numerators of the convergents, mod N */
    struct number *quotient;
};

static struct expansion expansion_start(void)
{
    struct expansion e = {.root = square_root(kn), .p = from_small(0), .q = from_small(1)};
    e.quotient = copy(e.root);
    e.q_before = copy(kn); /* as if Q(-1) = kN, so that the recurrence starts right */
    e.a_before = from_small(1);
    e.a = modulo(e.root, n);
    return e;
}

/* One term more: P' = qQ - P, Q' = Q(-1) + q(P - P'), q' = (root + P') / Q', A' = q'A + A(-1). */
static void expansion_step(struct expansion *e)
{
    struct number *product = multiply(e->quotient, e->q), *p = subtract(product, e->p), *q;
    if (compare(e->p, p) >= 0) {
        struct number *change = subtract(e->p, p), *growth = multiply(e->quotient, change);
        q = add(e->q_before, growth);
        free(change);
        free(growth);
    } else {
        struct number *change = subtract(p, e->p), *loss = multiply(e->quotient, change);
        q = subtract(e->q_before, loss);
        free(change);
        free(loss);
    }
    free(product);
    assign(&e->p, p);
    assign(&e->q_before, e->q);
    e->q = q;
}

static void expansion_converge(struct expansion *e)
{
    struct number *sum = add(e->root, e->p);
    assign(&e->quotient, divide(sum, e->q, NULL));
    free(sum);
    struct number *product = multiply(e->quotient, e->a), *next = add(product, e->a_before);
    free(product);
    assign(&e->a_before, e->a);
    e->a = modulo(next, n);
    free(next);
}

static void expansion_end(struct expansion *e)
{
    struct number *all[] = {e->root, e->p, e->q, e->q_before, e->a, e->a_before, e->quotient};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

int main(int count, char **values)
{
    int found = 0;
    struct number *k = from_small((uint32_t)argument(count, values, 3, 1));
    n = from_text(count > 1 ? values[1] : "1000000016000000063");
    kn = multiply(n, k);
    choose_primes((uint32_t)argument(count, values, 2, 150));
    struct expansion e = expansion_start();
    for (int negative = 1; !found && relation_count < RELATIONS_MAX; negative = !negative) {
        uint64_t row[ROW_WORDS] = {(uint64_t)negative};
        expansion_step(&e);
        if (is_small(e.q, 1))
            fail("the expansion is periodic: try another multiplier");
        if (smooth(e.q, row))
            found = add_relation(e.a, e.q, row);
        expansion_converge(&e);
    }
    expansion_end(&e);
    for (size_t i = 0; i < relation_count; i++) {
        free(relations[i].a);
        free(relations[i].q);
    }
    free(k);
    free(kn);
    free(n);
    return !found;
}
