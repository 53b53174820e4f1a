// SPDX-License-Identifier: Apache-2.0
//
// Makes one of IPv4 of a packet of IPv6 that is in between the two, and the other way round (RFC 7915), where it leaves
// by a NAT gateway's link; it comes in again there, as if it had been sent so.
//
//   from a guest  ─▶ its source becomes 64:ff9b::240.0.0.1 ─▶ leaves ═ 6 to 4 ═▶ comes in ─▶ as any packet of IPv4
//   to a guest    ◀─ as any packet of IPv6 ◀─ comes in ◀═ 4 to 6 ═ leaves ◀─ its destination becomes 240.0.0.1 again
//
// Of both ends, an address of IPv4 is the end of one of IPv6 (RFC 6052). So nothing is remembered here: who spoke to whom
// the gateway's tracking of flows knows, of either family on its side.
//
// What neither side could make sense of goes no further: other protocols than TCP, UDP and echo, options, and what
// control messages report of anything else. What comes in fragments leaves in them.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/icmpv6.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define memcpy __builtin_memcpy
#define memset __builtin_memset
#ifndef offsetof
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif

// 64:ff9b::/96, but for the words that are 0.
#define PREFIX bpf_htonl(0x0064ff9b)
// 240.0.0.0/4, which is nobody's: who a gateway speaks for, in between.
#define BETWEEN bpf_htonl(0xf0000000)
// The mark of what comes in again (`nat`).
#define TRANSLATED 0x64

#define NEXT_FRAGMENT 44
#define DONT_FRAGMENT 0x4000
#define MORE_FRAGMENTS 0x2000
#define OFFSET 0x1fff
// Of IPv6, which counts bytes and has three bits more behind it.
#define MORE_FRAGMENTS6 1
#define OFFSET6 0xfff8

// What is not longer than this fits every way of IPv6, and may be taken apart as IPv4.
#define SHORT 1260
// By how much a header of IPv6 is longer.
#define LONGER ((int)(sizeof(struct ipv6hdr) - sizeof(struct iphdr)))
// Every way of IPv6 takes this.
#define MTU6_MIN 1280

// What is summed up at once, in full words, and the most of a datagram.
#define PIECE 256
#define PIECES 40

// RFC 792: the kernel's own header takes in those of a C library.
#define ICMP_ECHOREPLY 0
#define ICMP_DEST_UNREACH 3
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_HOST_UNREACH 1
#define ICMP_PROT_UNREACH 2
#define ICMP_PORT_UNREACH 3
#define ICMP_FRAG_NEEDED 4
#define ICMP_NET_ANO 9
#define ICMP_HOST_ANO 10
#define ICMP_PKT_FILTERED 13
#define ICMP_PREC_CUTOFF 15

struct icmp4hdr {
	__u8 type, code;
	__u16 checksum;
	__be16 unused, mtu;
};

struct fragment6 {
	__u8 next, reserved;
	__be16 offset;
	__be32 id;
};

// What is summed with a message of IPv6: RFC 8200, 8.1.
struct pseudo6 {
	struct in6_addr from, to;
	__be32 length, next;
};

// The start of a packet that a control message is about: ports, or an echo's header.
struct begin {
	__u8 bytes[8];
};

struct report4 {
	struct icmp4hdr icmp;
	struct iphdr ip;
	struct begin begin;
};

struct report6 {
	struct icmp6hdr icmp;
	struct ipv6hdr ip;
	struct begin begin;
};

static __always_inline int is_translated(const struct in6_addr *address)
{
	const __be32 *words = address->in6_u.u6_addr32;

	return words[0] == PREFIX && !words[1] && !words[2];
}

static __always_inline void widen(struct in6_addr *address, __be32 ipv4)
{
	address->in6_u.u6_addr32[0] = PREFIX;
	address->in6_u.u6_addr32[1] = address->in6_u.u6_addr32[2] = 0;
	address->in6_u.u6_addr32[3] = ipv4;
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline void header4(struct iphdr *to, const struct ipv6hdr *from, __u8 protocol, __u16 length)
{
	memset(to, 0, sizeof(*to));
	to->version = 4;
	to->ihl = sizeof(*to) / 4;
	to->tos = from->priority << 4 | from->flow_lbl[0] >> 4;
	to->tot_len = bpf_htons(length);
	to->ttl = from->hop_limit;
	to->protocol = protocol == IPPROTO_ICMPV6 ? IPPROTO_ICMP : protocol;
	to->saddr = from->saddr.in6_u.u6_addr32[3];
	to->daddr = from->daddr.in6_u.u6_addr32[3];
	if (length > SHORT)
		to->frag_off = bpf_htons(DONT_FRAGMENT);
	else
		to->id = bpf_get_prandom_u32();
}

static __always_inline void sum_header4(struct iphdr *ip)
{
	ip->check = fold(bpf_csum_diff(NULL, 0, (__be32 *)ip, sizeof(*ip), 0));
}

static __always_inline void header6(struct ipv6hdr *to, const struct iphdr *from, __u16 length)
{
	memset(to, 0, sizeof(*to));
	to->version = 6;
	to->priority = from->tos >> 4;
	to->flow_lbl[0] = from->tos << 4;
	to->payload_len = bpf_htons(length);
	to->nexthdr = from->protocol == IPPROTO_ICMP ? IPPROTO_ICMPV6 : from->protocol;
	to->hop_limit = from->ttl;
	widen(&to->saddr, from->saddr);
	widen(&to->daddr, from->daddr);
}

// The checksum of a transport changes with the addresses alone.
static __always_inline int resum_addresses(struct __sk_buff *skb, __u8 protocol, __u32 at, __s64 difference)
{
	__u64 flags = BPF_F_PSEUDO_HDR;

	if (protocol == IPPROTO_TCP)
		return bpf_l4_csum_replace(skb, at + offsetof(struct tcphdr, check), 0, difference, flags);
	flags |= BPF_F_MARK_MANGLED_0;
	return bpf_l4_csum_replace(skb, at + offsetof(struct udphdr, check), 0, difference, flags);
}

static __always_inline struct pseudo6 pseudo6(const struct ipv6hdr *ip, __u16 length)
{
	struct pseudo6 pseudo = { ip->saddr, ip->daddr, bpf_htonl(length), bpf_htonl(IPPROTO_ICMPV6) };

	return pseudo;
}

// Types and codes of reports (RFC 7915, 4.2 and 5.2); 0 where there is no such one. What fits a way of the other family
// differs by the length of its header.
static __always_inline int report_to4(struct icmp4hdr *to, const struct icmp6hdr *from)
{
	memset(to, 0, sizeof(*to));
	switch (from->icmp6_type) {
	case ICMPV6_DEST_UNREACH:
		to->type = ICMP_DEST_UNREACH;
		to->code = from->icmp6_code == ICMPV6_PORT_UNREACH    ? ICMP_PORT_UNREACH
			   : from->icmp6_code == ICMPV6_ADM_PROHIBITED ? ICMP_HOST_ANO
								       : ICMP_HOST_UNREACH;
		return 1;
	case ICMPV6_PKT_TOOBIG:
		to->type = ICMP_DEST_UNREACH;
		to->code = ICMP_FRAG_NEEDED;
		to->mtu = bpf_htons(bpf_ntohl(from->icmp6_dataun.un_data32[0]) - LONGER);
		return 1;
	case ICMPV6_TIME_EXCEED:
		to->type = ICMP_TIME_EXCEEDED;
		to->code = from->icmp6_code;
		return 1;
	}
	return 0;
}

static __always_inline int report_to6(struct icmp6hdr *to, const struct icmp4hdr *from)
{
	__u32 mtu = bpf_ntohs(from->mtu);

	memset(to, 0, sizeof(*to));
	if (from->type == ICMP_TIME_EXCEEDED) {
		to->icmp6_type = ICMPV6_TIME_EXCEED;
		to->icmp6_code = from->code;
		return 1;
	}
	if (from->type != ICMP_DEST_UNREACH)
		return 0;
	to->icmp6_type = ICMPV6_DEST_UNREACH;
	switch (from->code) {
	case ICMP_PROT_UNREACH:
		to->icmp6_type = ICMPV6_PARAMPROB;
		to->icmp6_code = ICMPV6_UNK_NEXTHDR;
		to->icmp6_dataun.un_data32[0] = bpf_htonl(offsetof(struct ipv6hdr, nexthdr));
		return 1;
	case ICMP_PORT_UNREACH:
		to->icmp6_code = ICMPV6_PORT_UNREACH;
		return 1;
	case ICMP_FRAG_NEEDED:
		to->icmp6_type = ICMPV6_PKT_TOOBIG;
		mtu = mtu + LONGER < MTU6_MIN ? MTU6_MIN : mtu + LONGER;
		to->icmp6_dataun.un_data32[0] = bpf_htonl(mtu);
		return 1;
	case ICMP_NET_ANO:
	case ICMP_HOST_ANO:
	case ICMP_PKT_FILTERED:
	case ICMP_PREC_CUTOFF:
		to->icmp6_code = ICMPV6_ADM_PROHIBITED;
		return 1;
	}
	to->icmp6_code = ICMPV6_NOROUTE;
	return 1;
}

// Whether a report is of a packet of a kind that passes here, whose start it makes one of the other family.
static __always_inline int translate_begin(__u8 protocol, struct begin *begin)
{
	__u8 *type = begin->bytes;

	switch (protocol) {
	case IPPROTO_ICMP:
		*type = *type == ICMP_ECHO ? ICMPV6_ECHO_REQUEST : ICMPV6_ECHO_REPLY;
		return 1;
	case IPPROTO_ICMPV6:
		*type = *type == ICMPV6_ECHO_REQUEST ? ICMP_ECHO : ICMP_ECHOREPLY;
		return 1;
	case IPPROTO_TCP:
	case IPPROTO_UDP:
		return 1;
	}
	return 0;
}

// Lets a packet whose header is changed come in where it would have left.
static __always_inline int come_in(struct __sk_buff *skb, __be16 family)
{
	__u8 own[ETH_ALEN];

	if (bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_source), own, sizeof(own)) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_dest), own, sizeof(own), 0) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &family, sizeof(family), 0))
		return TC_ACT_SHOT;
	skb->mark = TRANSLATED;
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

static __noinline int report_leaves_to4(struct __sk_buff *skb)
{
	struct {
		struct iphdr ip;
		struct report4 report;
	} to;
	struct report6 from;
	struct ipv6hdr ip;
	struct pseudo6 pseudo;
	__u16 length, sum;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(ip), &from, sizeof(from)) || !is_translated(&from.ip.saddr) ||
	    !is_translated(&from.ip.daddr) || !report_to4(&to.report.icmp, &from.icmp))
		return TC_ACT_SHOT;
	length = bpf_ntohs(ip.payload_len);
	header4(&to.ip, &ip, IPPROTO_ICMP, length + sizeof(to.ip) - LONGER);
	sum_header4(&to.ip);
	header4(&to.report.ip, &from.ip, from.ip.nexthdr, bpf_ntohs(from.ip.payload_len) + sizeof(to.ip));
	sum_header4(&to.report.ip);
	to.report.begin = from.begin;
	if (!translate_begin(from.ip.nexthdr, &to.report.begin))
		return TC_ACT_SHOT;
	sum = ~from.icmp.icmp6_cksum;
	from.icmp.icmp6_cksum = 0;
	pseudo = pseudo6(&ip, length);
	sum = ~fold((__u64)sum + (__u32)bpf_csum_diff((__be32 *)&pseudo, sizeof(pseudo), NULL, 0, 0));
	to.report.icmp.checksum = fold((__u64)sum + (__u32)bpf_csum_diff((__be32 *)&from, sizeof(from),
									  (__be32 *)&to.report, sizeof(to.report), 0));
	if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IP), 0) || bpf_skb_adjust_room(skb, -LONGER, BPF_ADJ_ROOM_NET, 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &to, sizeof(to), 0))
		return TC_ACT_SHOT;
	return come_in(skb, bpf_htons(ETH_P_IP));
}

static __noinline int report_leaves_to6(struct __sk_buff *skb)
{
	struct {
		struct ipv6hdr ip;
		struct report6 report;
	} to;
	struct report4 from;
	struct iphdr ip;
	struct pseudo6 pseudo;
	__u16 length, sum;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(ip), &from, sizeof(from)) || from.ip.ihl != 5 ||
	    (from.ip.frag_off & bpf_htons(OFFSET)) || !report_to6(&to.report.icmp, &from.icmp))
		return TC_ACT_SHOT;
	length = bpf_ntohs(ip.tot_len) - sizeof(ip) + LONGER;
	header6(&to.ip, &ip, length);
	header6(&to.report.ip, &from.ip, bpf_ntohs(from.ip.tot_len) - sizeof(ip));
	to.report.begin = from.begin;
	if (!translate_begin(from.ip.protocol, &to.report.begin))
		return TC_ACT_SHOT;
	sum = ~from.icmp.checksum;
	from.icmp.checksum = 0;
	pseudo = pseudo6(&to.ip, length);
	sum = ~fold((__u64)sum + (__u32)bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0));
	to.report.icmp.icmp6_cksum = fold((__u64)sum + (__u32)bpf_csum_diff((__be32 *)&from, sizeof(from),
									     (__be32 *)&to.report, sizeof(to.report), 0));
	if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IPV6), 0) || bpf_skb_adjust_room(skb, LONGER, BPF_ADJ_ROOM_NET, 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &to, sizeof(to), 0))
		return TC_ACT_SHOT;
	return come_in(skb, bpf_htons(ETH_P_IPV6));
}

// What an echo's checksum changes by: its type, and what of IPv6 is summed with it.
static __always_inline int translate_echo(struct __sk_buff *skb, __u32 at, __u8 type, __u8 code, __u8 to,
					  const struct ipv6hdr *ip, int to6)
{
	__u8 words[2][4] = { { type, code }, { to, code } };
	struct pseudo6 pseudo = pseudo6(ip, bpf_ntohs(ip->payload_len));
	__s64 difference = bpf_csum_diff((__be32 *)words[0], sizeof(words[0]), (__be32 *)words[1], sizeof(words[1]), 0);

	if (to6)
		difference = bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), difference);
	else
		difference = bpf_csum_diff((__be32 *)&pseudo, sizeof(pseudo), NULL, 0, difference);
	return bpf_l4_csum_replace(skb, at + offsetof(struct icmp4hdr, checksum), 0, difference, 0) ||
	       bpf_skb_store_bytes(skb, at, &to, sizeof(to), 0);
}

static __noinline int leaves_to4(struct __sk_buff *skb)
{
	struct ipv6hdr ip;
	struct fragment6 fragment = {};
	struct iphdr to;
	__u32 at = ETH_HLEN + sizeof(ip), length;
	__u8 protocol, is_fragment, message[2];
	__u16 offset = 0;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || !is_translated(&ip.saddr) || !is_translated(&ip.daddr))
		return TC_ACT_UNSPEC;
	protocol = ip.nexthdr;
	length = bpf_ntohs(ip.payload_len) + sizeof(to);
	is_fragment = protocol == NEXT_FRAGMENT;
	if (is_fragment) {
		if (bpf_skb_load_bytes(skb, at, &fragment, sizeof(fragment)))
			return TC_ACT_SHOT;
		protocol = fragment.next;
		length -= sizeof(fragment);
		at += sizeof(fragment);
	}
	if (length > 0xffff)
		return TC_ACT_SHOT;
	header4(&to, &ip, protocol, length);
	if (is_fragment) {
		offset = bpf_ntohs(fragment.offset);
		to.frag_off = bpf_htons((offset & OFFSET6) >> 3 | (offset & MORE_FRAGMENTS6 ? MORE_FRAGMENTS : 0));
		to.id = bpf_htons(bpf_ntohl(fragment.id));
		offset &= OFFSET6;
	}
	sum_header4(&to);
	if (protocol == IPPROTO_ICMPV6 && !is_fragment) {
		if (bpf_skb_load_bytes(skb, at, message, sizeof(message)))
			return TC_ACT_SHOT;
		if (message[0] < ICMPV6_ECHO_REQUEST)
			return report_leaves_to4(skb);
		if (message[0] > ICMPV6_ECHO_REPLY ||
		    translate_echo(skb, at, message[0], message[1],
				   message[0] == ICMPV6_ECHO_REQUEST ? ICMP_ECHO : ICMP_ECHOREPLY, &ip, 0))
			return TC_ACT_SHOT;
	} else if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) {
		return TC_ACT_SHOT;
	} else if (!offset && resum_addresses(skb, protocol, at,
					      bpf_csum_diff((__be32 *)&ip.saddr, 2 * sizeof(ip.saddr),
							    (__be32 *)&to.saddr, 2 * sizeof(to.saddr), 0))) {
		return TC_ACT_SHOT;
	}
	if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IP), 0) ||
	    (is_fragment && bpf_skb_adjust_room(skb, -(int)sizeof(fragment), BPF_ADJ_ROOM_NET, 0)) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &to, sizeof(to), 0))
		return TC_ACT_SHOT;
	return come_in(skb, bpf_htons(ETH_P_IP));
}

// A datagram of IPv4 may bear no checksum; one of IPv6 has to.
static __noinline int sum_datagram(struct __sk_buff *skb, __u32 at, const struct ipv6hdr *ip)
{
	__u16 length = bpf_ntohs(ip->payload_len), check;
	struct pseudo6 pseudo = pseudo6(ip, length);
	__u8 piece[PIECE];
	__s64 sum;
	__u32 done = 0;

	pseudo.next = bpf_htonl(IPPROTO_UDP);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
	for (int number = 0; number < PIECES && done < length; number++) {
		__u32 left = length - done;

		if (left >= PIECE) {
			if (bpf_skb_load_bytes(skb, at + done, piece, PIECE))
				return -1;
		} else {
			memset(piece, 0, sizeof(piece));
			left &= PIECE - 1;
			if (!left || bpf_skb_load_bytes(skb, at + done, piece, left))
				return -1;
		}
		sum = bpf_csum_diff(NULL, 0, (__be32 *)piece, PIECE, sum);
		done += PIECE;
	}
	check = fold((__u32)sum);
	if (done < length)
		return -1;
	if (!check)
		check = 0xffff;
	return bpf_skb_store_bytes(skb, at + offsetof(struct udphdr, check), &check, sizeof(check), 0);
}

static __noinline int leaves_to6(struct __sk_buff *skb)
{
	struct {
		struct ipv6hdr ip;
		struct fragment6 fragment;
	} to = {};
	struct iphdr ip;
	__u32 at = ETH_HLEN + sizeof(ip), length;
	__u16 flags, check;
	__u8 is_fragment, message[2];

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || (ip.daddr & bpf_htonl(0xf0000000)) != BETWEEN)
		return TC_ACT_UNSPEC;
	flags = bpf_ntohs(ip.frag_off);
	length = bpf_ntohs(ip.tot_len) - sizeof(ip);
	if (ip.ihl != 5 || length > 0xffff - sizeof(to.fragment))
		return TC_ACT_SHOT;
	header6(&to.ip, &ip, length);
	is_fragment = (flags & (MORE_FRAGMENTS | OFFSET)) != 0;
	if (ip.protocol == IPPROTO_ICMP && !is_fragment) {
		if (bpf_skb_load_bytes(skb, at, message, sizeof(message)))
			return TC_ACT_SHOT;
		if (message[0] != ICMP_ECHO && message[0] != ICMP_ECHOREPLY)
			return report_leaves_to6(skb);
		if (translate_echo(skb, at, message[0], message[1],
				   message[0] == ICMP_ECHO ? ICMPV6_ECHO_REQUEST : ICMPV6_ECHO_REPLY, &to.ip, 1))
			return TC_ACT_SHOT;
	} else if (ip.protocol != IPPROTO_TCP && ip.protocol != IPPROTO_UDP) {
		return TC_ACT_SHOT;
	} else if (!(flags & OFFSET)) {
		check = 1;
		if (ip.protocol == IPPROTO_UDP &&
		    bpf_skb_load_bytes(skb, at + offsetof(struct udphdr, check), &check, sizeof(check)))
			return TC_ACT_SHOT;
		// Of a fragment, nobody knows the rest.
		if (!check ? is_fragment || sum_datagram(skb, at, &to.ip)
			   : resum_addresses(skb, ip.protocol, at,
					     bpf_csum_diff((__be32 *)&ip.saddr, 2 * sizeof(ip.saddr),
							   (__be32 *)&to.ip.saddr, 2 * sizeof(to.ip.saddr), 0)))
			return TC_ACT_SHOT;
	}
	if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IPV6), 0))
		return TC_ACT_SHOT;
	if (!is_fragment) {
		if (bpf_skb_store_bytes(skb, ETH_HLEN, &to.ip, sizeof(to.ip), 0))
			return TC_ACT_SHOT;
		return come_in(skb, bpf_htons(ETH_P_IPV6));
	}
	to.fragment.next = to.ip.nexthdr;
	to.fragment.offset = bpf_htons((flags & OFFSET) << 3 | (flags & MORE_FRAGMENTS ? MORE_FRAGMENTS6 : 0));
	to.fragment.id = bpf_htonl(bpf_ntohs(ip.id));
	to.ip.nexthdr = NEXT_FRAGMENT;
	to.ip.payload_len = bpf_htons(length + sizeof(to.fragment));
	if (bpf_skb_adjust_room(skb, sizeof(to.fragment), BPF_ADJ_ROOM_NET, 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &to, sizeof(to), 0))
		return TC_ACT_SHOT;
	return come_in(skb, bpf_htons(ETH_P_IPV6));
}

SEC("classifier")
int translate(struct __sk_buff *skb)
{
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IPV6):
		return leaves_to4(skb);
	case bpf_htons(ETH_P_IP):
		return leaves_to6(skb);
	}
	return TC_ACT_UNSPEC;
}
