// SPDX-License-Identifier: Apache-2.0
//
// A shorter way for packets of flows that the packet filter has let pass: where the one before left the router of a
// VPC, and how it was changed until then, is where and how this one leaves.
//
//   guest ─▶ tap ─▶ arrive ──known──────────────────────────────▶ tap ─▶ guest
//                     │                                            ▲
//                     └─unknown─▶ filter, tracking, routes ─▶ depart
//
// `arrive` stands where packets enter and notes of one that it does not know what it is; `depart` stands where they
// leave and learns. A flow of a packet or two is not worth it: the second is noted first.
//
// Who is held to a bandwidth waits in a bucket before that, which is at one end of a pair of links:
//
//   guest ─▶ tap ─▶ wait ─▶ bucket ═ pair ═▶ arrive_late ──known──▶ as above
//             ▲                                  │
//             └──────────────unknown─────────────┘
//
// What has waited bears the number of its tap as its mark, by which that is known for what it is when it comes again.
//
// What is learned holds for a second, and for as long as the driver says of nothing that it changed (`vpcs`): then a
// packet goes the long way again, is judged by the rules as they are now, and keeps the flow on the kernel's list of
// tracked flows. Nothing is decided here: a packet takes the short way only where one of the same ends, from the same card
// of the same interface, has been let pass in the same form.
//
// The long way is taken by all that begins or ends a connection, by fragments, by what has options, a tag or too few hops
// left, by what is too large for where it goes, and by all that is neither TCP nor UDP.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define memcpy __builtin_memcpy
#ifndef offsetof
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif

#define HOLDS_NS 1000000000ull
#define FLOWS 65536
#define VPCS 65536
#define SEEN 4096
// The high half of the numbers of links that have a bucket (`shape`).
#define BUCKETS 0x10000

#define FRAGMENT 0x3fff
#define TCP_FLAGS 13
#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4

// Between whom a packet goes.
struct ends {
	__u32 from[4], to[4];
	__u16 from_port, to_port;
	__u8 family, protocol;
	__u8 unused[2];
};

// A flow as it enters: by which link of which VPC's router.
struct flow {
	struct ends ends;
	__u32 link;
	__u32 vpc;
};

// By which card a packet comes to which: the addresses of its Ethernet header.
struct cards {
	__u32 words[2 * ETH_ALEN / 4];
};

// How its packets leave.
struct way {
	__u64 until;
	__u32 generation;
	__u32 link;
	// Of IPv4: IPv6 is not translated.
	__u32 from, to;
	struct cards entering, leaving;
	__u8 is_translated;
	// The link is a pair whose other end is in another namespace.
	__u8 is_pair;
	__u8 unused[6];
};

// A packet on its long way, which one processor does from end to end.
struct noted {
	struct flow flow;
	struct cards cards;
	__u32 generation;
	__u16 number;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FLOWS);
	__type(key, struct flow);
	__type(value, struct way);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct noted);
} noted SEC(".maps");

// Of which flow a processor has seen a packet: a sum of its ends, at the place that the sum names.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SEEN);
	__type(key, __u32);
	__type(value, __u32);
} seen SEC(".maps");

// What the driver says of a VPC: another generation with each change, and the largest packet that its links take.
struct vpc {
	__u32 generation;
	__u32 mtu;
};

// By the number of the VPC, which each of its filters bears as its class.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, VPCS);
	__type(key, __u32);
	__type(value, struct vpc);
} vpcs SEC(".maps");

// Where in a packet its transport header is, and that its headers are whole and of the plain kind; 0 where not.
static __always_inline __u32 read_ends(struct __sk_buff *skb, struct ends *ends, __u8 *tcp_flags)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *ethernet = data;
	__u32 at = sizeof(*ethernet);
	__u16 *ports;

	if (data + sizeof(*ethernet) > end)
		return 0;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + at;

		if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl != 5 || ip->ttl < 2 ||
		    (ip->frag_off & bpf_htons(FRAGMENT)) || bpf_ntohs(ip->tot_len) > skb->len - at)
			return 0;
		ends->family = 4;
		ends->protocol = ip->protocol;
		ends->from[0] = ip->saddr;
		ends->to[0] = ip->daddr;
		at += sizeof(*ip);
	} else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + at;

		if ((void *)(ip + 1) > end || ip->version != 6 || ip->hop_limit < 2 ||
		    bpf_ntohs(ip->payload_len) > skb->len - at - sizeof(*ip))
			return 0;
		ends->family = 6;
		ends->protocol = ip->nexthdr;
		memcpy(ends->from, &ip->saddr, sizeof(ends->from));
		memcpy(ends->to, &ip->daddr, sizeof(ends->to));
		at += sizeof(*ip);
	} else {
		return 0;
	}
	if (ends->protocol == IPPROTO_TCP) {
		if (data + at + sizeof(struct tcphdr) > end)
			return 0;
		*tcp_flags = *((__u8 *)data + at + TCP_FLAGS);
	} else if (ends->protocol == IPPROTO_UDP) {
		if (data + at + sizeof(struct udphdr) > end)
			return 0;
		*tcp_flags = 0;
	} else {
		return 0;
	}
	ports = data + at;
	ends->from_port = ports[0];
	ends->to_port = ports[1];
	return at;
}

static __always_inline struct cards read_cards(struct __sk_buff *skb)
{
	struct cards cards = {};
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	if (data + sizeof(cards) <= end)
		memcpy(&cards, data, sizeof(cards));
	return cards;
}

static __always_inline int fits(struct __sk_buff *skb, __u32 at, const struct flow *flow, __u32 mtu)
{
	__u32 length = skb->len - ETH_HLEN;

	if (skb->gso_size) {
		__u32 transport = sizeof(struct udphdr);

		if (flow->ends.protocol == IPPROTO_TCP) {
			struct tcphdr *tcp = (void *)(long)skb->data + at;

			if ((void *)(tcp + 1) > (void *)(long)skb->data_end)
				return 0;
			transport = tcp->doff * 4;
		}
		length = at - ETH_HLEN + transport + skb->gso_size;
	}
	return length <= mtu;
}

static __always_inline int replace_address(struct __sk_buff *skb, __u32 at, __u8 protocol, __u32 where, __u32 old,
					   __u32 new)
{
	__u32 sum = protocol == IPPROTO_TCP ? offsetof(struct tcphdr, check) : offsetof(struct udphdr, check);
	__u64 flags = BPF_F_PSEUDO_HDR | sizeof(new);

	if (old == new)
		return 0;
	// A datagram that bears no checksum gets none.
	if (protocol == IPPROTO_UDP)
		flags |= BPF_F_MARK_MANGLED_0;
	return bpf_l4_csum_replace(skb, at + sum, old, new, flags) ||
	       bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), old, new, sizeof(new)) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN + where, &new, sizeof(new), 0);
}

// Makes a packet what it would be once it has been forwarded.
static __always_inline int change(struct __sk_buff *skb, __u32 at, const struct flow *flow, const struct way *way)
{
	void *data, *end;

	if (way->is_translated &&
	    (replace_address(skb, at, flow->ends.protocol, offsetof(struct iphdr, saddr), flow->ends.from[0], way->from) ||
	     replace_address(skb, at, flow->ends.protocol, offsetof(struct iphdr, daddr), flow->ends.to[0], way->to)))
		return -1;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (flow->ends.family == 4) {
		struct iphdr *ip = data + ETH_HLEN;
		__u32 sum;

		if ((void *)(ip + 1) > end)
			return -1;
		// One less in the high byte of a word (RFC 1624).
		sum = ip->check + bpf_htons(0x0100);
		ip->check = sum + (sum >= 0xffff);
		ip->ttl--;
	} else {
		struct ipv6hdr *ip = data + ETH_HLEN;

		if ((void *)(ip + 1) > end)
			return -1;
		ip->hop_limit--;
	}
	memcpy(data, &way->leaving, sizeof(way->leaving));
	return 0;
}

static __always_inline int is_same(const __u32 *one, const __u32 *other, int words)
{
	__u32 differs = 0;

	for (int word = 0; word < words; word++)
		differs |= one[word] ^ other[word];
	return !differs;
}

// Whether a packet of the flow has been seen before. Who takes another's for it learns a packet early.
static __always_inline int is_seen(const struct flow *flow)
{
	const __u32 *words = (const __u32 *)flow;
	__u32 sum = 0, place, *last;

	for (unsigned int word = 0; word < sizeof(*flow) / sizeof(sum); word++)
		sum = (sum ^ words[word]) * 0x9e3779b1;
	place = sum >> 16 & (SEEN - 1);
	last = bpf_map_lookup_elem(&seen, &place);
	if (!last)
		return 0;
	if (*last == sum)
		return 1;
	*last = sum;
	return 0;
}

// Remembers of a packet that takes the long way what it is.
static __always_inline void note(struct __sk_buff *skb, const struct flow *flow, __u32 generation)
{
	__u32 zero = 0;
	struct noted *noting = bpf_map_lookup_elem(&noted, &zero);

	if (!noting)
		return;
	noting->flow = *flow;
	noting->cards = read_cards(skb);
	noting->generation = generation;
	noting->number = noting->number == 0xffff ? 1 : noting->number + 1;
	skb->tc_index = noting->number;
}

// What becomes of a packet that has come by a link.
static __always_inline int enter(struct __sk_buff *skb, __u32 link)
{
	struct flow flow = { .link = link, .vpc = skb->tc_classid };
	__u8 tcp_flags;
	__u32 at = read_ends(skb, &flow.ends, &tcp_flags);
	struct vpc *vpc;
	struct cards cards;
	struct way *way;

	skb->tc_index = 0;
	if (!at || skb->vlan_present || tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST))
		return TC_ACT_UNSPEC;
	vpc = bpf_map_lookup_elem(&vpcs, &flow.vpc);
	if (!vpc)
		return TC_ACT_UNSPEC;
	way = bpf_map_lookup_elem(&flows, &flow);
	if (!way && !is_seen(&flow))
		return TC_ACT_UNSPEC;
	cards = read_cards(skb);
	if (!way || way->generation != vpc->generation || way->until < bpf_ktime_get_ns() ||
	    !is_same(way->entering.words, cards.words, 3) || !fits(skb, at, &flow, vpc->mtu)) {
		note(skb, &flow, vpc->generation);
		return TC_ACT_UNSPEC;
	}
	if (change(skb, at, &flow, way))
		return TC_ACT_SHOT;
	return way->is_pair ? bpf_redirect_peer(way->link, 0) : bpf_redirect(way->link, 0);
}

SEC("classifier")
int arrive(struct __sk_buff *skb)
{
	return enter(skb, skb->ifindex);
}

// The class, of 16 bits, is the low half of the number of the link that has the bucket.
SEC("classifier")
int wait(struct __sk_buff *skb)
{
	if (skb->mark) {
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	skb->mark = skb->ifindex;
	return bpf_redirect(BUCKETS | skb->tc_classid, 0);
}

SEC("classifier")
int arrive_late(struct __sk_buff *skb)
{
	__u32 tap = skb->mark;
	int becomes;

	// The kernel's own words, of which the pair has none.
	if (!tap)
		return TC_ACT_SHOT;
	becomes = enter(skb, tap);
	if (becomes == TC_ACT_UNSPEC)
		return bpf_redirect(tap, BPF_F_INGRESS);
	skb->mark = 0;
	return becomes;
}

static __always_inline int learn(struct __sk_buff *skb, __u8 is_pair)
{
	__u32 zero = 0;
	struct noted *noting = bpf_map_lookup_elem(&noted, &zero);
	struct way way = { .link = skb->ifindex, .is_pair = is_pair };
	struct ends ends = {};
	__u8 tcp_flags;

	// It may have been noted in another VPC, and have come by a link between the two.
	if (!noting || !skb->tc_index || noting->number != skb->tc_index || noting->flow.link != skb->ingress_ifindex ||
	    noting->flow.vpc != skb->tc_classid)
		return TC_ACT_UNSPEC;
	skb->tc_index = 0;
	// It has a hop less now, and may have none left for another router.
	if (!read_ends(skb, &ends, &tcp_flags) || ends.family != noting->flow.ends.family ||
	    ends.protocol != noting->flow.ends.protocol || ends.from_port != noting->flow.ends.from_port ||
	    ends.to_port != noting->flow.ends.to_port)
		return TC_ACT_UNSPEC;
	if (!is_same(ends.from, noting->flow.ends.from, 4) || !is_same(ends.to, noting->flow.ends.to, 4)) {
		if (ends.family != 4)
			return TC_ACT_UNSPEC;
		way.is_translated = 1;
	}
	way.from = ends.from[0];
	way.to = ends.to[0];
	way.entering = noting->cards;
	way.leaving = read_cards(skb);
	way.generation = noting->generation;
	way.until = bpf_ktime_get_ns() + HOLDS_NS;
	bpf_map_update_elem(&flows, &noting->flow, &way, BPF_ANY);
	return TC_ACT_UNSPEC;
}

SEC("classifier")
int depart(struct __sk_buff *skb)
{
	return learn(skb, 0);
}

SEC("classifier")
int depart_by_pair(struct __sk_buff *skb)
{
	return learn(skb, 1);
}
