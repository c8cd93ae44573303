#include <cstdio>
#include <memory>
#include <vector>

struct Shape {
    virtual long area() const = 0;
    virtual ~Shape() = default;
};
struct Square : Shape {
    long side;
    explicit Square(long side) : side(side) {}
    long area() const override { return side * side; }
};
struct Strip : Shape {
    long length;
    explicit Strip(long length) : length(length) {}
    long area() const override { return length; }
};
struct Scaled : Shape {
    std::unique_ptr<Shape> inner;
    explicit Scaled(std::unique_ptr<Shape> inner) : inner(std::move(inner)) {}
    long area() const override { return inner->area() * 2; }
};

int main() {
    std::vector<std::unique_ptr<Shape>> shapes;
    unsigned seed = 1;
    for (long i = 0; i < 1000; i++) {
        seed = seed * 1103515245 + 12345;
        if (seed >> 16 & 1) shapes.push_back(std::make_unique<Square>(i));
        else shapes.push_back(std::make_unique<Strip>(i));
        if (seed >> 17 & 1) shapes.back() = std::make_unique<Scaled>(std::move(shapes.back()));
    }
    long sum = 0;
    for (int round = 0; round < 80000; round++)
        for (auto &shape : shapes) sum += shape->area();
    printf("%ld\n", sum);
}
