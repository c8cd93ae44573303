// Loops over words that were never set.
#include <stdio.h>
#include <stdlib.h>

int main(void) {
    enum { N = 1 << 13 };
    unsigned long *p = malloc(N * sizeof *p), x = 0;
    for (int round = 0; round < 100000; round++)
        for (int i = 0; i < N; i++) {
            x = (x ^ p[i]) + (x >> 3);
            __asm__("" : "+r"(x));
        }
    p[0] = x;
    __asm__ volatile("" : : "r"(p) : "memory");
    printf("%d\n", p != NULL);
    free(p);
    return 0;
}
