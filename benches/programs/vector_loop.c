// A stencil that the compiler vectorises: SSE or AVX by its flags.
#include <stdio.h>
#include <stdlib.h>

int main(void) {
    enum { N = 1 << 16 };
    float *a = malloc((N + 2) * sizeof *a), *b = malloc((N + 2) * sizeof *b);
    for (int i = 0; i < N + 2; i++) a[i] = i % 13, b[i] = 0;
    for (int round = 0; round < 20000; round++) {
        for (int i = 1; i <= N; i++) b[i] = (a[i - 1] + a[i] + a[i + 1]) * 0.333f;
        __asm__ volatile("" ::: "memory");
    }
    printf("%g\n", b[N / 2]);
    free(a);
    free(b);
    return 0;
}
