// A hundred thousand lost blocks, each with a deep stack of its own.
#include <stdio.h>
#include <stdlib.h>

static void *volatile last;

#define STEP(name, next) \
    __attribute__((noinline)) static void name##0(unsigned path, int depth); \
    __attribute__((noinline)) static void name##1(unsigned path, int depth); \
    static void name(unsigned path, int depth) { if (path & 1) name##1(path >> 1, depth); else name##0(path >> 1, depth); } \
    static void name##0(unsigned path, int depth) { next(path, depth - 1); __asm__ volatile(""); } \
    static void name##1(unsigned path, int depth) { next(path, depth - 1); __asm__ volatile("nop"); }

static void end(unsigned path, int depth) {
    last = malloc(24);
    __asm__ volatile("");
}
STEP(a, end)
STEP(b, a)
STEP(c, b)
STEP(d, c)
STEP(e, d)
STEP(f, e)
STEP(g, f)
STEP(h, g)
STEP(i, h)
STEP(j, i)
STEP(k, j)
STEP(l, k)
STEP(m, l)
STEP(n, m)
STEP(o, n)
STEP(p, o)
STEP(q, p)

int main(void) {
    for (unsigned path = 0; path < 100000; path++) q(path, 17);
    last = NULL;
    puts("done");
    return 0;
}
