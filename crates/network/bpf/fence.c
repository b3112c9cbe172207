/* SPDX-License-Identifier: Apache-2.0
 *
 * The fence on the tap of one sandbox: what its guest sends and what it gets.
 *
 * Everything is refused that no rule allows, and everything that is refused is counted. The maps are
 * filled by src/fence/ebpf.rs, which also explains them. This file includes no header, so that the
 * object depends on nothing but itself and the compiler.
 *
 * Sources: Linux, include/uapi/linux/bpf.h (context, helpers, kinds of maps); RFC 826 (ARP); RFC 791
 * (IPv4); RFC 792 (ICMP); RFC 768 (UDP); RFC 9293 (TCP).
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define NUMBER(name, value) int (*name)[value]
#define TYPE(name, type) typeof(type) *name

/* Kinds of maps, and what is done with a frame. */
#define HASH 1
#define ARRAY 2
#define LRU_HASH 9
#define LPM_TRIE 11
#define NO_PREALLOC 1
#define TC_ACT_OK 0
#define TC_ACT_SHOT 2

/* Only as far as it is read; the offsets are the kernel's. */
struct __sk_buff {
    u32 len;
    u32 pkt_type;
    u32 mark;
    u32 queue_mapping;
    u32 protocol;
    u32 vlan_present;
};

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static u64 (*const now_ns)(void) = (void *)5;
static long (*const load_bytes)(const void *skb, u32 offset, void *to, u32 len) = (void *)26;
struct bpf_spin_lock {
    u32 val;
};
static void (*const lock)(struct bpf_spin_lock *lock) = (void *)93;
static void (*const unlock)(struct bpf_spin_lock *lock) = (void *)94;

/* The order is that of `Count` in src/fence/tally.rs. */
enum count {
    PACKETS_OUT,
    BYTES_OUT,
    PACKETS_IN,
    BYTES_IN,
    FLOWS,
    ETHERTYPE,
    IPV6,
    SOURCE_MAC,
    SOURCE_ADDRESS,
    ARP,
    MALFORMED,
    FRAGMENT,
    PROTOCOL,
    DENIED,
    BLOCKED,
    RATE,
    FLOW_RATE,
    FLOW_TABLE,
    UNSOLICITED,
    COUNTS
};

#define SPANS 16
/* The ports of one protocol, from first to last, in the host's byte order. */
struct span {
    u16 first;
    u16 last;
    u8 protocol;
    u8 unused[3];
};
/* What may be reached at an address. */
struct grant {
    u64 expires_ns; /* of the monotonic clock; 0 is never */
    u32 count;
    u32 blocked; /* whether nothing but being named opens this range */
    struct span spans[SPANS];
};
/* Addresses and ports below are in the network's byte order. */
struct prefix {
    u32 length;
    u32 address;
};
struct flow {
    u32 remote;
    u16 remote_port;
    u16 guest_port;
    u32 protocol;
};
struct began {
    u64 at_ns;
};
struct meeting {
    u32 remote;
    u16 port;
    u8 protocol;
    u8 count;
};
struct met {
    u64 times;
    u64 last_ns;
};
struct bucket {
    struct bpf_spin_lock guard;
    u32 unused;
    u64 tokens;
    u64 filled_ns;
    u64 rate;  /* tokens for each second, 10^10 at most */
    u64 burst; /* most tokens */
};
struct settings {
    u8 guest_mac[6];
    u8 gateway_mac[6];
    u32 guest;
    u32 gateway;
};

struct {
    NUMBER(type, ARRAY);
    NUMBER(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct settings);
} SETTINGS SECTION(".maps");
struct {
    NUMBER(type, LPM_TRIE);
    NUMBER(max_entries, 1024);
    NUMBER(map_flags, NO_PREALLOC);
    TYPE(key, struct prefix);
    TYPE(value, struct grant);
} GRANTS SECTION(".maps");
struct {
    NUMBER(type, HASH);
    NUMBER(max_entries, 4096);
    NUMBER(map_flags, NO_PREALLOC);
    TYPE(key, u32);
    TYPE(value, struct grant);
} PINNED SECTION(".maps");
struct {
    NUMBER(type, LRU_HASH);
    NUMBER(max_entries, 4096);
    TYPE(key, struct flow);
    TYPE(value, struct began);
} LIVE SECTION(".maps");
struct {
    NUMBER(type, LRU_HASH);
    NUMBER(max_entries, 1024);
    TYPE(key, struct meeting);
    TYPE(value, struct met);
} SEEN SECTION(".maps");
struct {
    NUMBER(type, ARRAY);
    NUMBER(max_entries, COUNTS);
    TYPE(key, u32);
    TYPE(value, u64);
} TALLY SECTION(".maps");

#define BUCKET_OUT 0
#define BUCKET_IN 1
#define BUCKET_FLOWS 2
struct {
    NUMBER(type, ARRAY);
    NUMBER(max_entries, 3);
    TYPE(key, u32);
    TYPE(value, struct bucket);
} BUCKETS SECTION(".maps");

#define ETHERTYPE_ARP 0x0608 /* 0x0806 as it is read on a little-endian host, as are those below */
#define ETHERTYPE_IPV4 0x0008
#define ETHERTYPE_IPV6 0xdd86
struct ethernet {
    u8 to[6];
    u8 from[6];
    u16 type;
} __attribute__((packed));
struct arp {
    u16 hardware;
    u16 protocol;
    u8 hardware_length;
    u8 protocol_length;
    u16 operation;
    u8 sender_mac[6];
    u32 sender;
    u8 target_mac[6];
    u32 target;
} __attribute__((packed));
struct ipv4 {
    u8 version_and_length;
    u8 service;
    u16 total_length;
    u16 id;
    u16 fragment;
    u8 ttl;
    u8 protocol;
    u16 checksum;
    u32 from;
    u32 to;
} __attribute__((packed));
struct ports {
    u16 from;
    u16 to;
};
struct icmp {
    u8 type;
    u8 code;
    u16 checksum;
    u32 rest;
};

#define AT_IPV4 sizeof(struct ethernet)
#define AT_L4 (AT_IPV4 + sizeof(struct ipv4))
#define ICMP 1
#define TCP 6
#define UDP 17
#define DNS 0x3500 /* port 53, in the network's byte order */
#define FRAGMENTED 0xff3f /* "more fragments" and the offset, in the network's byte order */
#define SWAP(port) ((u16)((port) >> 8 | (port) << 8))

INLINE void add(u32 count, u64 number)
{
    u64 *value = map_lookup(&TALLY, &count);
    if (value)
        __sync_fetch_and_add(value, number);
}

INLINE void note(u32 remote, u16 port, u8 protocol, u8 count)
{
    struct meeting key = {.remote = remote, .port = port, .protocol = protocol, .count = count};
    u64 now = now_ns();
    struct met *met = map_lookup(&SEEN, &key);
    if (met) {
        __sync_fetch_and_add(&met->times, 1);
        met->last_ns = now;
    } else {
        struct met first = {.times = 1, .last_ns = now};
        map_update(&SEEN, &key, &first, 0);
    }
}

static __attribute__((noinline)) int refuse(u8 count, u32 remote, u16 port, u8 protocol)
{
    add(count, 1);
    note(remote, port, protocol, count);
    return TC_ACT_SHOT;
}

/* Takes so many tokens, if they are there. */
INLINE int take(u32 which, u64 wanted)
{
    struct bucket *bucket = map_lookup(&BUCKETS, &which);
    if (!bucket)
        return 0;
    u64 now = now_ns();
    int taken = 0;
    lock(&bucket->guard);
    u64 passed = now > bucket->filled_ns ? now - bucket->filled_ns : 0;
    if (passed > 1000000000)
        passed = 1000000000;
    u64 fresh = passed * bucket->rate / 1000000000;
    if (fresh > 0) {
        u64 tokens = bucket->tokens + fresh;
        bucket->tokens = tokens > bucket->burst ? bucket->burst : tokens;
        bucket->filled_ns = now;
    }
    if (bucket->tokens >= wanted) {
        bucket->tokens -= wanted;
        taken = 1;
    }
    unlock(&bucket->guard);
    return taken;
}

INLINE int same_mac(const u8 *a, const u8 *b)
{
    int different = 0;
    for (int i = 0; i < 6; i++)
        different |= a[i] ^ b[i];
    return !different;
}

/* Whether the grant holds for this port, which is in the network's byte order. */
INLINE int grants(struct grant *grant, u8 protocol, u16 port)
{
    u16 number = SWAP(port);
    for (u32 i = 0; i < SPANS; i++) {
        if (i >= grant->count)
            break;
        struct span *span = &grant->spans[i];
        if (span->protocol == protocol && number >= span->first && number <= span->last)
            return 1;
    }
    return 0;
}

/* Why this destination is refused; FLOWS is that it is not. */
static __attribute__((noinline)) u8 judge(u32 remote, u8 protocol, u16 port)
{
    struct prefix key = {.length = 32, .address = remote};
    struct grant *grant = map_lookup(&GRANTS, &key);
    if (grant && grants(grant, protocol, port))
        return FLOWS;
    if (grant && grant->blocked)
        return BLOCKED;
    grant = map_lookup(&PINNED, &remote);
    if (grant && now_ns() < grant->expires_ns && grants(grant, protocol, port))
        return FLOWS;
    return DENIED;
}

INLINE int arp_from_guest(struct __sk_buff *skb, struct settings *settings)
{
    struct arp arp;
    if (load_bytes(skb, AT_IPV4, &arp, sizeof arp) < 0)
        return 0;
    /* Ethernet and IPv4; a request or a reply of the guest about itself and the gateway. */
    return arp.hardware == 0x0100 && arp.protocol == ETHERTYPE_IPV4 && arp.hardware_length == 6 &&
           arp.protocol_length == 4 && (arp.operation == 0x0100 || arp.operation == 0x0200) &&
           same_mac(arp.sender_mac, settings->guest_mac) && arp.sender == settings->guest &&
           arp.target == settings->gateway;
}

INLINE int pass_out(struct __sk_buff *skb)
{
    add(PACKETS_OUT, 1);
    add(BYTES_OUT, skb->len);
    return TC_ACT_OK;
}

INLINE int pass_in(struct __sk_buff *skb)
{
    add(PACKETS_IN, 1);
    add(BYTES_IN, skb->len);
    return TC_ACT_OK;
}

/* What the guest sends: it comes in at the tap. */
SECTION("classifier/from_guest") int from_guest(struct __sk_buff *skb)
{
    u32 zero = 0;
    struct settings *settings = map_lookup(&SETTINGS, &zero);
    struct ethernet ethernet;
    struct ipv4 ip;
    if (!settings || load_bytes(skb, 0, &ethernet, sizeof ethernet) < 0)
        return refuse(MALFORMED, 0, 0, 0);
    if (!same_mac(ethernet.from, settings->guest_mac))
        return refuse(SOURCE_MAC, 0, 0, 0);
    if (skb->vlan_present)
        return refuse(ETHERTYPE, 0, 0, 0);
    if (ethernet.type == ETHERTYPE_IPV6)
        return refuse(IPV6, 0, 0, 0);
    if (ethernet.type == ETHERTYPE_ARP) {
        if (!arp_from_guest(skb, settings))
            return refuse(ARP, 0, 0, 0);
        return take(BUCKET_OUT, skb->len) ? pass_out(skb) : refuse(RATE, 0, 0, 0);
    }
    if (ethernet.type != ETHERTYPE_IPV4)
        return refuse(ETHERTYPE, 0, 0, 0);
    /* No options: nobody needs them, and a source route is one. */
    if (load_bytes(skb, AT_IPV4, &ip, sizeof ip) < 0 || ip.version_and_length != 0x45)
        return refuse(MALFORMED, 0, 0, 0);
    if (ip.from != settings->guest)
        return refuse(SOURCE_ADDRESS, ip.to, 0, ip.protocol);
    if (ip.fragment & FRAGMENTED)
        return refuse(FRAGMENT, ip.to, 0, ip.protocol);
    if (ip.protocol != TCP && ip.protocol != UDP)
        return refuse(PROTOCOL, ip.to, 0, ip.protocol);
    struct ports ports;
    if (load_bytes(skb, AT_L4, &ports, sizeof ports) < 0)
        return refuse(MALFORMED, ip.to, 0, ip.protocol);
    /* The resolver, and nothing else of the gateway. */
    if (ip.to == settings->gateway && ip.protocol == UDP && ports.to == DNS)
        return take(BUCKET_OUT, skb->len) ? pass_out(skb) : refuse(RATE, ip.to, ports.to, UDP);

    struct flow key = {
        .remote = ip.to, .remote_port = ports.to, .guest_port = ports.from, .protocol = ip.protocol};
    /* A flow that began goes on, also when the time of its name's address is over. */
    int known = map_lookup(&LIVE, &key) != 0;
    u8 verdict = known ? FLOWS : judge(ip.to, ip.protocol, ports.to);
    if (verdict != FLOWS)
        return refuse(verdict, ip.to, ports.to, ip.protocol);
    if (!take(BUCKET_OUT, skb->len))
        return refuse(RATE, ip.to, ports.to, ip.protocol);
    if (!known) {
        if (!take(BUCKET_FLOWS, 1))
            return refuse(FLOW_RATE, ip.to, ports.to, ip.protocol);
        struct began began = {.at_ns = now_ns()};
        if (map_update(&LIVE, &key, &began, 0) < 0)
            return refuse(FLOW_TABLE, ip.to, ports.to, ip.protocol);
        add(FLOWS, 1);
        note(ip.to, ports.to, ip.protocol, FLOWS);
    }
    return pass_out(skb);
}

/* Whether an ICMP error is about a packet of a flow that the guest began. */
INLINE int concerns_a_flow(struct __sk_buff *skb, struct settings *settings)
{
    struct icmp icmp;
    struct ipv4 sent;
    struct ports ports;
    if (load_bytes(skb, AT_L4, &icmp, sizeof icmp) < 0)
        return 0;
    /* Destination unreachable, with "fragmentation needed" among them, and time exceeded. */
    if (icmp.type != 3 && icmp.type != 11)
        return 0;
    if (load_bytes(skb, AT_L4 + sizeof icmp, &sent, sizeof sent) < 0 ||
        load_bytes(skb, AT_L4 + sizeof icmp + sizeof sent, &ports, sizeof ports) < 0)
        return 0;
    if (sent.version_and_length != 0x45 || sent.from != settings->guest)
        return 0;
    struct flow key = {.remote = sent.to,
                       .remote_port = ports.to,
                       .guest_port = ports.from,
                       .protocol = sent.protocol};
    return map_lookup(&LIVE, &key) != 0;
}

/* What the guest gets: it goes out at the tap. */
SECTION("classifier/to_guest") int to_guest(struct __sk_buff *skb)
{
    u32 zero = 0;
    struct settings *settings = map_lookup(&SETTINGS, &zero);
    struct ethernet ethernet;
    struct ipv4 ip;
    if (!settings || load_bytes(skb, 0, &ethernet, sizeof ethernet) < 0)
        return refuse(MALFORMED, 0, 0, 0);
    if (ethernet.type == ETHERTYPE_IPV6)
        return refuse(IPV6, 0, 0, 0);
    if (ethernet.type == ETHERTYPE_ARP) {
        struct arp arp;
        if (load_bytes(skb, AT_IPV4, &arp, sizeof arp) < 0 || arp.sender != settings->gateway ||
            arp.target != settings->guest)
            return refuse(ARP, 0, 0, 0);
        return pass_in(skb);
    }
    if (ethernet.type != ETHERTYPE_IPV4)
        return refuse(ETHERTYPE, 0, 0, 0);
    if (load_bytes(skb, AT_IPV4, &ip, sizeof ip) < 0 || ip.version_and_length != 0x45)
        return refuse(MALFORMED, 0, 0, 0);
    if (ip.to != settings->guest)
        return refuse(UNSOLICITED, ip.from, 0, ip.protocol);
    if (ip.fragment & FRAGMENTED)
        return refuse(FRAGMENT, ip.from, 0, ip.protocol);
    u16 port = 0;
    if (ip.protocol == ICMP) {
        if (!concerns_a_flow(skb, settings))
            return refuse(UNSOLICITED, ip.from, 0, ICMP);
    } else if (ip.protocol == TCP || ip.protocol == UDP) {
        struct ports ports;
        if (load_bytes(skb, AT_L4, &ports, sizeof ports) < 0)
            return refuse(MALFORMED, ip.from, 0, ip.protocol);
        port = ports.from;
        struct flow key = {.remote = ip.from,
                           .remote_port = ports.from,
                           .guest_port = ports.to,
                           .protocol = ip.protocol};
        int resolver = ip.from == settings->gateway && ip.protocol == UDP && ports.from == DNS;
        if (!resolver && !map_lookup(&LIVE, &key))
            return refuse(UNSOLICITED, ip.from, ports.from, ip.protocol);
    } else {
        return refuse(PROTOCOL, ip.from, 0, ip.protocol);
    }
    if (!take(BUCKET_IN, skb->len))
        return refuse(RATE, ip.from, port, ip.protocol);
    return pass_in(skb);
}

/* No helper above is lent only to programs under the kernel's own licence. */
SECTION("license") const char LICENSE[] = "Apache-2.0";
