// An exception over ten frames with destructors.
#include <cstdio>
#include <stdexcept>
#include <string>

static long live;

struct Guard {
    Guard() { live++; }
    ~Guard() { live--; }
};

__attribute__((noinline)) static int dive(int depth) {
    Guard guard;
    if (depth == 0) throw std::runtime_error("bottom");
    return dive(depth - 1) + (int)live;
}

int main() {
    long caught = 0;
    for (int i = 0; i < 60000; i++) {
        try {
            dive(10);
        } catch (const std::exception &e) {
            caught += e.what()[0];
        }
    }
    printf("%ld %ld\n", caught, live);
}
