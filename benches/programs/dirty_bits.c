// Bit-fields of structs that were never cleared.
#include <stdio.h>
#include <stdlib.h>

struct flags {
    unsigned kind : 3, level : 9, count : 14;
};

__attribute__((noinline)) static unsigned step(struct flags *f, unsigned i) {
    f->kind = i;
    f->level = i >> 3;
    f->count += 3;
    return f->kind == 5 ? f->count : f->level;
}

int main(void) {
    enum { N = 1000 };
    struct flags *f = malloc(N * sizeof *f);
    for (int i = 0; i < N; i++) f[i].count = (unsigned)i;
    unsigned sum = 0;
    for (unsigned round = 0; round < 140000; round++)
        for (int i = 0; i < N; i++) sum += step(&f[i], round + (unsigned)i);
    printf("%u\n", sum);
    free(f);
    return 0;
}
