/* SPDX-License-Identifier: MIT */
/* RACK: loss detection by time (RFC 8985, section 6). A segment is lost if one sent later was
 * delivered and the reordering window has passed since it should have been delivered itself; that
 * finds lost retransmissions and lost tails of a window too. */
#include <unikit/net/inet/board.h>

enum {
    RACK_PERIOD_US = 30000000, /* the minimal round trip is that of one to two of these */
    RACK_PATIENCE = 16,        /* recoveries without a duplicate until the window is narrow again */
    RACK_WIDTH_MAX = 4         /* quarters: never wider than the round trip */
};

void inet_rack_round_trip(struct inet_rack *r, uint32_t rtt_us, uint32_t now_us)
{
    if (r->min_rtt_us == 0) {
        r->min_rtt_us = r->period_min_us = rtt_us;
        r->period_us = now_us;
    }
    if (now_us - r->period_us > RACK_PERIOD_US) {
        r->min_rtt_us = r->period_min_us;
        r->period_min_us = rtt_us;
        r->period_us = now_us;
    }
    if (rtt_us < r->period_min_us)
        r->period_min_us = rtt_us;
    if (rtt_us < r->min_rtt_us)
        r->min_rtt_us = rtt_us;
}

void inet_rack_delivered(struct inet_rack *r, const struct inet_sent *s,
                         const struct inet_delivery *d)
{
    uint32_t rtt = d->now_us - s->sent_us;
    bool again = (s->flags & INET_SENT_AGAIN) != 0;
    if (!again)
        inet_rack_round_trip(r, rtt == 0 ? 1 : rtt, d->now_us);
    /* Section 6.2, step 2: an acknowledgment that is rather one of the first transmission. */
    if (again && ((d->slack_us != 0 && kit_seq_lt(d->echo_us + d->slack_us, s->sent_us)) ||
                  rtt < r->min_rtt_us))
        return;
    if (!r->valid || inet_sent_after(s->sent_us, s->end, r->sent_us, r->end)) {
        r->sent_us = s->sent_us;
        r->end = s->end;
        r->rtt_us = rtt;
    }
    if (!r->valid || kit_seq_lt(r->fack, s->end))
        r->fack = s->end;
    else if (!again && kit_seq_lt(s->end, r->fack))
        r->reordered = true; /* step 3 */
    r->valid = true;
}

uint32_t inet_rack_window(const struct inet_rack *r, uint32_t srtt_us, bool recovering,
                          bool threshold)
{
    if (!r->reordered && (recovering || threshold))
        return 0;
    uint32_t window = r->min_rtt_us / 4 * (r->width == 0 ? 1u : r->width);
    return window < srtt_us ? window : srtt_us;
}

void inet_rack_duplicate(struct inet_rack *r, uint32_t una, uint32_t nxt)
{
    if (r->round != 0 && kit_seq_lt(una, r->round))
        return; /* once per round trip */
    r->round = nxt;
    r->patience = RACK_PATIENCE;
    if (r->width < RACK_WIDTH_MAX)
        r->width = r->width == 0 ? 2 : (uint8_t)(r->width + 1);
}

void inet_rack_recovered(struct inet_rack *r)
{
    r->round = 0;
    if (r->patience != 0 && --r->patience == 0)
        r->width = 1;
}

uint32_t inet_rack_detect(struct inet_rack *r, struct inet_board *b, uint32_t now_us,
                          uint32_t window_us, uint32_t *lost)
{
    uint32_t again_us = 0;
    *lost = 0;
    for (uint32_t i = 0; r->valid && i < b->count; i++) {
        struct inet_sent *s = inet_board_at(b, i);
        if ((s->flags & INET_SENT_SACKED) != 0 ||
            (s->flags & (INET_SENT_LOST | INET_SENT_OUT)) == INET_SENT_LOST)
            continue;
        if (!inet_sent_after(r->sent_us, r->end, s->sent_us, s->end)) {
            if ((s->flags & INET_SENT_AGAIN) == 0)
                break; /* what was sent once was sent in order: nothing older follows */
            continue;
        }
        int32_t left = (int32_t)(s->sent_us + r->rtt_us + window_us - now_us);
        if (left <= 0) {
            inet_board_mark_lost(b, s);
            *lost += inet_sent_length(s);
        } else if ((uint32_t)left > again_us) {
            again_us = (uint32_t)left;
        }
    }
    return again_us;
}
