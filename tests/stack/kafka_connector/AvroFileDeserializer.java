package io.trino.decoder.avro;

/**
 * Stands before Trino's class of this name, which wants every message to be an Avro file: reads Confluent's framing
 * with Trino's own decoder of bytes instead, as the connector does with a registry, but for the look-up of the schema.
 */
public final class AvroFileDeserializer {
    private static final int FRAMING_BYTES = 5;

    private AvroFileDeserializer() {}

    public static final class Factory implements AvroDeserializer.Factory {
        @Override
        public <T> AvroDeserializer<T> create(AvroReaderSupplier<T> readers) {
            return new AvroBytesDeserializer<>(buffer -> {
                buffer.position(buffer.position() + FRAMING_BYTES);
                return readers.get(buffer);
            });
        }
    }
}
