// Vectors that grow by one element at a time with doubling room, and strings that grow by pieces.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    long sum = 0;
    for (int round = 0; round < 1500; round++) {
        int *items = NULL;
        size_t used = 0, room = 0;
        for (int i = 0; i < 300000; i++) {
            if (used == room) items = realloc(items, (room = room ? room * 2 : 4) * sizeof *items);
            items[used++] = i;
        }
        sum += items[used / 2];
        free(items);
        char *text = NULL;
        size_t length = 0;
        for (int i = 0; i < 3000; i++) {
            text = realloc(text, length + 12);
            memcpy(text + length, "hello world", 12);
            length += 11;
        }
        sum += text[length - 1];
        free(text);
    }
    printf("%ld\n", sum);
    return 0;
}
