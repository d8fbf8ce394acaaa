// isal prints how fast ISA-L codes and sums on one core, and memcpy copies, in the shape that bench/micro reads:
// a name, a tab, 10^9 bytes each second. Names and sizes are those of bench/micro/codec.go.
#include <isa-l.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST 16
#define BLOCK 4096

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

// coder holds what an encoding or a rebuilding needs.
struct coder {
	int k, out, size;
	unsigned char tables[32 * MOST * MOST];
	unsigned char *shards[MOST];
};

static unsigned char *bytes(int n) {
	unsigned char *b = aligned_alloc(64, n);
	if (!b) exit(1);
	for (int i = 0; i < n; i++) b[i] = i * 7 + i / 251;
	return b;
}

static void encode(void *p) {
	struct coder *c = p;
	ec_encode_data(c->size, c->k, c->out, c->tables, c->shards, c->shards + c->k);
}

static volatile uint32_t sink;
static unsigned char *from, *to;
static size_t copied;

static void sum(void *p) { (void)p; sink = crc32_iscsi(from, BLOCK, 0); }
static void sums(void *p) {
	(void)p;
	for (int i = 0; i < 8; i++) sink = crc32_iscsi(from + i * BLOCK, BLOCK, 0);
}
static void copy(void *p) { (void)p; memcpy(to, from, copied); sink = to[copied / 2]; }

// measure repeats f, which works on n bytes, for the time that is asked for.
static void measure(const char *name, double seconds, double n, void (*f)(void *), void *p) {
	long times = 0;
	double start = now(), end;
	do {
		for (int i = 0; i < 64; i++) f(p);
		times += 64;
		end = now();
	} while (end - start < seconds);
	printf("%s\t%.3f\n", name, n * times / (end - start) / 1e9);
}

// code measures k+m: parity of k shards, or, where lost is set, the first of them from the k behind it.
static void code(double seconds, int k, int m, int size, int lost) {
	struct coder c = {.k = k, .out = lost ? 1 : m, .size = size};
	unsigned char all[MOST * MOST], some[MOST * MOST], back[MOST * MOST];
	char name[64];
	gf_gen_cauchy1_matrix(all, k + m, k);
	unsigned char *rows = all + k * k;
	if (lost) {
		memcpy(some, all + k, k * k); // shards 1 to k
		if (gf_invert_matrix(some, back, k)) exit(1);
		rows = back;
	}
	ec_init_tables(k, c.out, rows, c.tables);
	for (int i = 0; i < k + c.out; i++) c.shards[i] = bytes(size);
	if (lost) snprintf(name, sizeof name, "rebuild %d+%d, %d KiB", k, m, size / 1024);
	else snprintf(name, sizeof name, "encode %d+%d, %d KiB", k, m, size / 1024);
	measure(name, seconds, (double)size * (lost ? 1 : k), encode, &c);
	for (int i = 0; i < k + c.out; i++) free(c.shards[i]);
}

int main(int argc, char **argv) {
	double seconds = argc > 1 ? atof(argv[1]) : 0.1;
	code(seconds, 4, 2, 65536, 0);
	code(seconds, 8, 2, 65536, 0);
	code(seconds, 4, 2, 65536, 1);
	code(seconds, 8, 2, 65536, 1);
	code(seconds, 4, 2, 4096, 1);
	from = bytes(262144), to = bytes(262144);
	measure("checksum, 4 KiB", seconds, BLOCK, sum, 0);
	measure("checksums, 8 of 4 KiB", seconds, 8 * BLOCK, sums, 0);
	copied = BLOCK;
	measure("copy, 4 KiB", seconds, copied, copy, 0);
	copied = 262144;
	measure("copy, 256 KiB", seconds, copied, copy, 0);
	return 0;
}
