// memcpy and arithmetic on partly filled buffers; only filled parts decide anything.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    enum { N = 4096 };
    unsigned *a = malloc(N * sizeof *a), *b = malloc(N * sizeof *b);
    for (int i = 0; i < N; i += 2) a[i] = (unsigned)i;
    unsigned sum = 0;
    for (unsigned round = 0; round < 240000; round++) {
        memcpy(b, a, N * sizeof *b);
        for (int i = 0; i < N; i++) b[i] = b[i] * 3 + round;
        sum += b[round * 2 % N];
    }
    printf("%u\n", sum);
    free(a);
    free(b);
    return 0;
}
