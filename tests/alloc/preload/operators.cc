// SPDX-License-Identifier: MIT
// C++ operators in all their forms. Exits with the number of expectations that did not hold.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

static int failures;

#define EXPECT(condition) \
    ((condition) ? (void)0 : (void)(failures++, std::printf("line %d: %s\n", __LINE__, #condition)))

static volatile std::size_t huge = PTRDIFF_MAX;
static int handled;

static void give_up_at_third()
{
    if (++handled == 3)
        std::set_new_handler(nullptr);
}

static void throw_at_once()
{
    handled++;
    throw std::bad_alloc();
}

template <typename F> static bool throws(F f)
{
    try {
        f();
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}

struct alignas(256) Wide {
    char bytes[300];
};

static bool aligned(void *block, std::size_t align)
{
    return block && reinterpret_cast<std::uintptr_t>(block) % align == 0;
}

static void test_forms()
{
    for (std::size_t size : {std::size_t(0), std::size_t(1), std::size_t(100), std::size_t(70000)}) {
        void *block = ::operator new(size);
        EXPECT(aligned(block, 16));
        std::memset(block, 1, size);
        ::operator delete(block);
        ::operator delete(::operator new(size), size);
        ::operator delete[](::operator new[](size));
        ::operator delete[](::operator new[](size), size);
        block = ::operator new(size, std::nothrow);
        EXPECT(block);
        ::operator delete(block, std::nothrow);
        block = ::operator new[](size, std::nothrow);
        EXPECT(block);
        ::operator delete[](block, std::nothrow);
        for (std::size_t align = 16; align <= 65536; align *= 4) {
            auto value = std::align_val_t(align);
            block = ::operator new(size, value);
            EXPECT(aligned(block, align));
            ::operator delete(block, value);
            block = ::operator new[](size, value);
            EXPECT(aligned(block, align));
            ::operator delete[](block, size, value);
            block = ::operator new(size, value, std::nothrow);
            EXPECT(aligned(block, align));
            ::operator delete(block, size, value);
            block = ::operator new[](size, value, std::nothrow);
            EXPECT(aligned(block, align));
            ::operator delete[](block, value, std::nothrow);
        }
    }
    auto wide = std::make_unique<Wide[]>(7);
    EXPECT(aligned(wide.get(), 256));
}

static void test_failures()
{
    EXPECT(throws([] { ::operator delete(::operator new(huge)); }));
    EXPECT(throws([] { ::operator delete[](::operator new[](huge)); }));
    EXPECT(throws([] { ::operator delete(::operator new(huge, std::align_val_t(64))); }));
    EXPECT(throws([] { std::string(huge / 2, 'x'); }));
    EXPECT(::operator new(huge, std::nothrow) == nullptr);
    EXPECT(::operator new[](huge, std::nothrow) == nullptr);
    EXPECT(::operator new(huge, std::align_val_t(64), std::nothrow) == nullptr);
    std::set_new_handler(give_up_at_third);
    EXPECT(throws([] { ::operator delete(::operator new(huge)); }) && handled == 3);
    handled = 0;
    std::set_new_handler(give_up_at_third);
    EXPECT(::operator new(huge, std::nothrow) == nullptr && handled == 3);
    handled = 0;
    std::set_new_handler(throw_at_once);
    EXPECT(::operator new(huge, std::nothrow) == nullptr && handled == 1);
    EXPECT(::operator new(huge, std::align_val_t(128), std::nothrow) == nullptr && handled == 2);
    std::set_new_handler(nullptr);
}

struct Local {
    std::string text = std::string(1000, 'l');
    ~Local()
    {
        std::vector<std::string> more(10, text);
    }
};

static thread_local Local local;

static void test_threads()
{
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++)
        threads.emplace_back([] {
            EXPECT(local.text.size() == 1000);
            std::map<int, std::string> map;
            for (int key = 0; key < 2000; key++)
                map[key * 7 % 1000] += std::string(static_cast<std::size_t>(key % 100), 'x');
            EXPECT(map.size() == 1000);
        });
    for (auto &thread : threads)
        thread.join();
}

int main()
{
    test_forms();
    test_failures();
    test_threads();
    return failures;
}
