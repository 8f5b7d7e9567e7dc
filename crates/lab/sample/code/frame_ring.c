/*
 * A ring buffer of bytes with length-prefixed frames on top, for one producer and one consumer in the
 * same thread: a serial line fills it in pieces, a parser takes whole frames out.
 *
 * Wire format of a frame: 2 bytes length (big endian), payload, 1 byte checksum (the sum of the payload
 * modulo 256). A frame with a bad checksum is dropped and counted; a length that can never fit
 * empties the buffer, because nothing after it can be trusted.
 */

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* A power of two: positions are masked, and head - tail is right even when the counters wrap. */
#define RING_SIZE 256u
#define RING_MASK (RING_SIZE - 1u)
#define FRAME_OVERHEAD 3u

struct ring {
    uint32_t head; /* bytes ever written */
    uint32_t tail; /* bytes ever read */
    uint32_t bad_checksums;
    uint32_t resets;
    uint8_t data[RING_SIZE];
};

static uint32_t ring_used(const struct ring *r)
{
    return r->head - r->tail;
}

static uint32_t ring_free(const struct ring *r)
{
    return RING_SIZE - ring_used(r);
}

static uint8_t ring_peek(const struct ring *r, uint32_t offset)
{
    assert(offset < ring_used(r));
    return r->data[(r->tail + offset) & RING_MASK];
}

/* Writes as many of the bytes as fit and returns how many that were. */
static size_t ring_write(struct ring *r, const uint8_t *bytes, size_t count)
{
    size_t space = ring_free(r);
    if (count > space)
        count = space;

    size_t start = r->head & RING_MASK;
    size_t first = RING_SIZE - start;
    if (first > count)
        first = count;

    memcpy(r->data + start, bytes, first);
    memcpy(r->data, bytes + first, count - first);
    r->head += (uint32_t)count;
    return count;
}

/*
 * Takes the next whole frame. Returns its payload's length, -1 when no frame is complete yet, or -2 when
 * `capacity` is too small for it (the frame stays in the buffer).
 */
static int frame_read(struct ring *r, uint8_t *payload, size_t capacity)
{
    while (ring_used(r) >= 2u) {
        uint32_t length = ((uint32_t)ring_peek(r, 0) << 8) | ring_peek(r, 1);

        if (length + FRAME_OVERHEAD > RING_SIZE) {
            r->tail = r->head;
            r->resets++;
            return -1;
        }
        if (ring_used(r) < length + FRAME_OVERHEAD)
            return -1;
        if (length > capacity)
            return -2;

        uint8_t sum = 0;
        for (uint32_t i = 0; i < length; i++) {
            payload[i] = ring_peek(r, 2u + i);
            sum = (uint8_t)(sum + payload[i]);
        }
        bool intact = sum == ring_peek(r, 2u + length);
        r->tail += length + FRAME_OVERHEAD;
        if (intact)
            return (int)length;
        r->bad_checksums++;
    }
    return -1;
}

/* Builds a frame in `out` and returns its size; `out` has room for length + FRAME_OVERHEAD bytes. */
static size_t frame_build(const uint8_t *payload, uint16_t length, uint8_t *out)
{
    uint8_t sum = 0;

    out[0] = (uint8_t)(length >> 8);
    out[1] = (uint8_t)(length & 0xff);
    for (uint16_t i = 0; i < length; i++) {
        out[2 + i] = payload[i];
        sum = (uint8_t)(sum + payload[i]);
    }
    out[2 + length] = sum;
    return (size_t)length + FRAME_OVERHEAD;
}

int main(void)
{
    struct ring line = {0};
    uint8_t wire[64];
    uint8_t payload[64];
    const char *messages[] = {"temperature 21.5", "", "pressure 1013"};

    /* More rounds than the buffer has bytes, so that every frame crosses the end at some point. */
    for (int round = 0; round < 1000; round++) {
        for (size_t m = 0; m < sizeof messages / sizeof messages[0]; m++) {
            size_t length = strlen(messages[m]);
            size_t size = frame_build((const uint8_t *)messages[m], (uint16_t)length, wire);

            /* Byte by byte, as the line delivers it: no frame may come out before its last byte. */
            for (size_t i = 0; i + 1 < size; i++) {
                assert(ring_write(&line, wire + i, 1) == 1);
                assert(frame_read(&line, payload, sizeof payload) == -1);
            }
            assert(ring_write(&line, wire + size - 1, 1) == 1);
            assert(frame_read(&line, payload, sizeof payload) == (int)length);
            assert(memcmp(payload, messages[m], length) == 0);
        }
    }
    printf("%u bytes passed through, %u bad checksums\n", line.head, line.bad_checksums);
    return 0;
}
