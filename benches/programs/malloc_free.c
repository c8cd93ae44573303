// Blocks of 8 to 200 bytes, a few thousand alive at a time.
#include <stdio.h>
#include <stdlib.h>

int main(void) {
    enum { N = 4096 };
    static char *blocks[N];
    unsigned seed = 1, sum = 0;
    for (int i = 0; i < 20000000; i++) {
        seed = seed * 1103515245 + 12345;
        unsigned slot = seed >> 16 & (N - 1), size = 8 + (seed >> 8) % 193;
        free(blocks[slot]);
        blocks[slot] = malloc(size);
        blocks[slot][0] = (char)i;
        sum += (unsigned char)blocks[slot][0];
    }
    for (int i = 0; i < N; i++) free(blocks[i]);
    printf("%u\n", sum);
    return 0;
}
