#include <stdio.h>
#include <stdlib.h>

enum { N = 500 };

int main(void) {
    double *a = malloc(N * N * sizeof *a), *b = malloc(N * N * sizeof *b), *c = calloc(N * N, sizeof *c);
    for (int i = 0; i < N * N; i++) a[i] = i % 7, b[i] = i % 11;
    for (int round = 0; round < 12; round++)
        for (int i = 0; i < N; i++)
            for (int k = 0; k < N; k++)
                for (int j = 0; j < N; j++) c[i * N + j] += a[i * N + k] * b[k * N + j];
    printf("%g\n", c[N * N / 2]);
    free(a);
    free(b);
    free(c);
    return 0;
}
