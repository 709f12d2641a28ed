// Runs one streaming query of Flink inside this process and prints its rows as they come, until it is ended.
// Arguments: the name of a catalog, its properties as `key=value`, then `--` and the query.
import java.util.Arrays;
import java.util.stream.Collectors;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.types.Row;
import org.apache.flink.util.CloseableIterator;

public final class FlinkReader {
    public static void main(String[] args) throws Exception {
        int end = Arrays.asList(args).indexOf("--");
        String properties = Arrays.stream(args, 1, end)
                .map(property -> property.split("=", 2))
                .map(pair -> "'" + pair[0] + "' = '" + pair[1] + "'")
                .collect(Collectors.joining(", "));
        Configuration configuration = new Configuration();
        configuration.setString("parallelism.default", "1");
        configuration.setString("rest.port", "0");
        // Rows are shown once a checkpoint is done, so that what a restart reads again is not shown again.
        configuration.setString("execution.checkpointing.interval", "1 s");
        configuration.setString("restart-strategy.type", "fixed-delay");
        configuration.setString("restart-strategy.fixed-delay.attempts", "100");
        configuration.setString("restart-strategy.fixed-delay.delay", "1 s");
        TableEnvironment tables = TableEnvironment.create(
                EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(configuration).build());
        tables.executeSql("CREATE CATALOG " + args[0] + " WITH (" + properties + ")");
        try (CloseableIterator<Row> rows = tables.executeSql(args[end + 1]).collect()) {
            while (rows.hasNext()) {
                Row row = rows.next();
                StringBuilder line = new StringBuilder("row");
                for (int i = 0; i < row.getArity(); i++) {
                    line.append('\t').append(row.getField(i));
                }
                System.out.println(line);
            }
        }
    }
}
