// memcpy, memset and strlen over 64 MiB, chosen by the argument.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    size_t size = 64u << 20;
    char *a = malloc(size), *b = malloc(size);
    size_t sum = 0;
    memset(a, 'a', size);
    memset(b, 'b', size);
    a[size - 1] = 0;
    int rounds = argc > 2 ? atoi(argv[2]) : 1;
    for (int i = 0; i < rounds; i++) {
        switch (argv[1][0]) {
        case 'c': memcpy(b, a, size); break;
        case 's': memset(b, i, size); break;
        default: sum += strlen(a);
        }
        __asm__ volatile("" ::: "memory");
        sum += b[i];
    }
    printf("%zu\n", sum);
    free(a);
    free(b);
    return 0;
}
