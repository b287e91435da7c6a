<?php
// A guest book: GET lists the names, POST name=... adds one.
mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
header('Content-Type: text/plain');
try {
    $db = mysqli_init();
    $db->options(MYSQLI_OPT_CONNECT_TIMEOUT, 2);  // a worker must not wait for a database that is gone
    $db->real_connect(getenv('DB_HOST'), 'app', getenv('DB_PASSWORD'), 'guests');
    if ($_SERVER['REQUEST_METHOD'] === 'POST' && ($_POST['name'] ?? '') !== '') {
        $insert = $db->prepare('INSERT INTO names (name) VALUES (?)');
        $name = substr($_POST['name'], 0, 80);
        $insert->bind_param('s', $name);
        $insert->execute();
    }
    echo "Guest book\n";
    foreach ($db->query('SELECT name FROM names ORDER BY id') as $row) {
        echo '- ' . $row['name'] . "\n";
    }
} catch (mysqli_sql_exception $error) {
    http_response_code(503);
    echo "the database does not answer yet\n";
}
