/* SPDX-License-Identifier: MIT */
/* Introduces the image to the outer stack. A stack may hold back only a few packets for a neighbour
 * that it has to ask for (RFC 1122, 2.3.2.2), so of the first burst of connections or datagrams
 * some would be lost. The wire hears the image speak: with the MAC address it hears, it asks the
 * outer stack for its own in the image's name, now and then, and by that the stack learns the
 * image's (RFC 826, «merge»). */
#include <unikit/net/netif/user/host.h>

#include <string.h>

#include <unikit/net/wire/arp.h>
#include <unikit/net/wire/ethernet.h>
#include <unikit/net/wire/ipv4.h>

static const uint64_t PERIOD_NS = 30 * KIT_NS_PER_S; /* stacks know neighbours for a minute or so */

/* Whether the frame's sender uses this IP address. */
static bool is_from(const struct kit_frame *frame, uint32_t ip)
{
    const uint8_t *payload = frame->data + KIT_ETH_HEADER;
    uint16_t type = kit_load16(frame->data + KIT_ETH_TYPE);
    if (type == KIT_ETH_ARP)
        return kit_arp_valid(payload, frame->length - KIT_ETH_HEADER) &&
               kit_load32(payload + KIT_ARP_SENDER_IP) == ip;
    return type == KIT_ETH_IPV4 && frame->length >= KIT_ETH_HEADER + KIT_IPV4_HEADER &&
           kit_load32(payload + KIT_IPV4_SOURCE) == ip;
}

void user_arp_hear(struct user *user, const struct kit_frame *frames, size_t count)
{
    for (size_t i = 0; i < count && !user->heard; i++)
        if (is_from(&frames[i], user->config.image_address)) {
            memcpy(user->image_mac, frames[i].data + KIT_ETH_SOURCE, KIT_ETH_ADDRESS);
            user->heard = true;
        }
}

bool user_arp_due(const struct user *user, uint64_t now_ns)
{
    return user->heard && now_ns >= user->introduce_ns;
}

void user_arp_request(struct user *user, uint64_t now_ns, uint8_t *frame)
{
    static const uint8_t everyone[KIT_ETH_ADDRESS] = {255, 255, 255, 255, 255, 255};
    static const uint8_t unknown[KIT_ETH_ADDRESS];
    kit_eth_write(frame, everyone, user->image_mac, KIT_ETH_ARP);
    kit_arp_write(frame + KIT_ETH_HEADER, KIT_ARP_REQUEST, user->image_mac,
                  user->config.image_address, unknown, user->config.outer_address);
    user->introduce_ns = now_ns + PERIOD_NS;
    user->heard = false; /* only a living image is introduced again */
}
