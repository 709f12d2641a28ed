// Runs statements of Flink inside this process. The rows of the last one are printed as they come, until it ends or is ended.
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;
import org.apache.flink.types.Row;
import org.apache.flink.util.CloseableIterator;

public final class FlinkSql {
    public static void main(String[] statements) throws Exception {
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
        int last = statements.length - 1;
        for (int i = 0; i < last; i++) {
            tables.executeSql(statements[i]);
        }
        TableResult result = tables.executeSql(statements[last]);
        if (statements[last].startsWith("INSERT")) {
            result.await();
            System.exit(0);
        }
        try (CloseableIterator<Row> rows = result.collect()) {
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
