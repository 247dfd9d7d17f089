/* SPDX-License-Identifier: MIT */
/* Natural numbers of any size for cfrac.c: immutable, each one a block of its own, so that every
 * operation allocates its result. Schoolbook methods (Knuth, TAOCP 2, 4.3.1) on digits of a byte.
 *
 * A number has one owner; operations borrow their operands. assign() replaces an owner's number. */
#ifndef BIGNUM_H
#define BIGNUM_H

#include "pattern.h"

enum { DIGIT_BITS = 8, DIGITS_MAX = 512 };

typedef uint8_t digit_t;

struct number {
    uint32_t size; /* digits in use; none of them leads with zero */
    uint32_t room;
    digit_t digit[];
};

static inline struct number *number_new(uint32_t room)
{
    struct number *n = must(malloc(sizeof *n + (room ? room : 1) * sizeof n->digit[0]));
    n->size = n->room = room;
    return n;
}

static inline struct number *trimmed(struct number *n)
{
    while (n->size && !n->digit[n->size - 1])
        n->size--;
    return n;
}

static inline void assign(struct number **owner, struct number *n)
{
    free(*owner);
    *owner = n;
}

static inline struct number *from_small(uint32_t value)
{
    struct number *n = number_new(sizeof value / sizeof n->digit[0]);
    for (uint32_t at = 0; at < n->size; at++, value >>= DIGIT_BITS)
        n->digit[at] = (digit_t)value;
    return trimmed(n);
}

static inline struct number *copy(const struct number *a)
{
    struct number *n = number_new(a->size);
    memcpy(n->digit, a->digit, a->size * sizeof a->digit[0]);
    return n;
}

static inline int is_small(const struct number *a, digit_t value)
{
    return value ? a->size == 1 && a->digit[0] == value : !a->size;
}

static inline int compare(const struct number *a, const struct number *b)
{
    if (a->size != b->size)
        return a->size < b->size ? -1 : 1;
    for (uint32_t n = a->size; n-- > 0;)
        if (a->digit[n] != b->digit[n])
            return a->digit[n] < b->digit[n] ? -1 : 1;
    return 0;
}

static inline struct number *add(const struct number *a, const struct number *b)
{
    const struct number *longer = a->size < b->size ? b : a, *other = a->size < b->size ? a : b;
    struct number *sum = number_new(longer->size + 1);
    uint32_t carry = 0, n = 0;
    for (; n < longer->size; n++) {
        carry += longer->digit[n] + (n < other->size ? other->digit[n] : 0U);
        sum->digit[n] = (digit_t)carry;
        carry >>= DIGIT_BITS;
    }
    sum->digit[n] = (digit_t)carry;
    return trimmed(sum);
}

/* a - b; b MUST NOT be larger. */
static inline struct number *subtract(const struct number *a, const struct number *b)
{
    struct number *difference = number_new(a->size);
    int32_t borrow = 0;
    for (uint32_t n = 0; n < a->size; n++) {
        borrow += a->digit[n] - (n < b->size ? b->digit[n] : 0);
        difference->digit[n] = (digit_t)borrow;
        borrow >>= DIGIT_BITS;
    }
    return trimmed(difference);
}

static inline struct number *multiply(const struct number *a, const struct number *b)
{
    struct number *product = number_new(a->size + b->size);
    memset(product->digit, 0, product->size * sizeof product->digit[0]);
    for (uint32_t i = 0; i < a->size; i++) {
        uint32_t carry = 0;
        for (uint32_t k = 0; k < b->size; k++) {
            carry += (uint32_t)a->digit[i] * b->digit[k] + product->digit[i + k];
            product->digit[i + k] = (digit_t)carry;
            carry >>= DIGIT_BITS;
        }
        product->digit[i + b->size] = (digit_t)carry;
    }
    return trimmed(product);
}

/* a mod divisor, which MUST be below 2^24. */
static inline uint32_t remainder_small(const struct number *a, uint32_t divisor)
{
    uint32_t rest = 0;
    for (uint32_t n = a->size; n-- > 0;)
        rest = (rest << DIGIT_BITS | a->digit[n]) % divisor;
    return rest;
}

/* a / divisor, which MUST be below 2^24, and the rest. */
static inline struct number *divide_small(const struct number *a, uint32_t divisor, uint32_t *rest)
{
    struct number *quotient = number_new(a->size);
    uint32_t left = 0;
    for (uint32_t n = a->size; n-- > 0;) {
        left = left << DIGIT_BITS | a->digit[n];
        quotient->digit[n] = (digit_t)(left / divisor);
        left %= divisor;
    }
    *rest = left;
    return trimmed(quotient);
}

/* Algorithm D: quotient of a / b, and the rest in *rest if that is wanted. b MUST NOT be zero. */
static inline struct number *divide(const struct number *a, const struct number *b,
                                    struct number **rest)
{
    if (compare(a, b) < 0) {
        if (rest)
            *rest = copy(a);
        return from_small(0);
    }
    if (b->size == 1) {
        uint32_t left;
        struct number *whole = divide_small(a, b->digit[0], &left);
        if (rest)
            *rest = from_small(left);
        return whole;
    }
    digit_t u[DIGITS_MAX + 1], v[DIGITS_MAX];
    uint32_t n = b->size, m = a->size - n;
    int shift = __builtin_clz(b->digit[n - 1]) - (32 - DIGIT_BITS);
    if (a->size > DIGITS_MAX)
        fail("a number is too large");
    for (uint32_t i = n; i-- > 0;)
        v[i] = (digit_t)(b->digit[i] << shift | (i ? b->digit[i - 1] >> (DIGIT_BITS - shift) : 0));
    for (uint32_t i = a->size + 1; i-- > 0;)
        u[i] = (digit_t)((i < a->size ? a->digit[i] << shift : 0) |
                         (i ? a->digit[i - 1] >> (DIGIT_BITS - shift) : 0));
    struct number *quotient = number_new(m + 1);
    for (uint32_t j = m + 1; j-- > 0;) {
        uint32_t top = (uint32_t)u[j + n] << DIGIT_BITS | u[j + n - 1];
        uint32_t guess = top / v[n - 1], over = top % v[n - 1];
        while (guess >> DIGIT_BITS || guess * v[n - 2] > (over << DIGIT_BITS | u[j + n - 2])) {
            guess--;
            over += v[n - 1];
            if (over >> DIGIT_BITS)
                break;
        }
        int64_t borrow = 0;
        for (uint32_t i = 0; i <= n; i++) {
            borrow += (int64_t)u[i + j] - (i < n ? (int64_t)guess * v[i] : 0);
            u[i + j] = (digit_t)borrow;
            borrow >>= DIGIT_BITS;
        }
        if (borrow) { /* one too large after all: add the divisor back */
            uint32_t carry = 0;
            guess--;
            for (uint32_t i = 0; i <= n; i++) {
                carry += u[i + j] + (i < n ? v[i] : 0U);
                u[i + j] = (digit_t)carry;
                carry >>= DIGIT_BITS;
            }
        }
        quotient->digit[j] = (digit_t)guess;
    }
    if (rest) {
        *rest = number_new(n);
        for (uint32_t i = 0; i < n; i++)
            (*rest)->digit[i] =
                (digit_t)((uint32_t)u[i] >> shift | (uint32_t)u[i + 1] << (DIGIT_BITS - shift));
        trimmed(*rest);
    }
    return trimmed(quotient);
}

static inline struct number *modulo(const struct number *a, const struct number *b)
{
    struct number *rest;
    free(divide(a, b, &rest));
    return rest;
}

/* a * b mod n */
static inline struct number *multiply_modulo(const struct number *a, const struct number *b,
                                             const struct number *n)
{
    struct number *product = multiply(a, b), *rest = modulo(product, n);
    free(product);
    return rest;
}

static inline struct number *from_text(const char *text)
{
    struct number *n = from_small(0), *ten = from_small(10);
    for (; *text >= '0' && *text <= '9'; text++) {
        struct number *digit = from_small((uint32_t)(*text - '0'));
        assign(&n, multiply(n, ten));
        assign(&n, add(n, digit));
        free(digit);
    }
    free(ten);
    return n;
}

static inline void print(const struct number *a)
{
    char text[DIGITS_MAX * 5 + 1], *at = text + sizeof text - 1;
    struct number *rest = copy(a);
    for (*at = '\0'; rest->size;) {
        uint32_t digit;
        assign(&rest, divide_small(rest, 10, &digit));
        *--at = (char)('0' + digit);
    }
    puts(at);
    free(rest);
}

/* The largest number whose square is not above a, by Newton's method from above. */
static inline struct number *square_root(const struct number *a)
{
    struct number *guess = copy(a), *two = from_small(2);
    for (;;) {
        struct number *other = divide(a, guess, NULL), *sum = add(guess, other);
        struct number *better = divide(sum, two, NULL);
        free(other);
        free(sum);
        int done = compare(better, guess) >= 0;
        if (done) {
            free(better);
            free(two);
            return guess;
        }
        assign(&guess, better);
    }
}

static inline struct number *gcd(const struct number *a, const struct number *b)
{
    struct number *x = copy(a), *y = copy(b);
    while (y->size) {
        struct number *rest = modulo(x, y);
        free(x);
        x = y;
        y = rest;
    }
    free(y);
    return x;
}

#endif
