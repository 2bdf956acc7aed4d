// Outlines the slides of a table, as `wsisam-qupath batch --to-table` writes it, a task per slide.
//
//   nextflow run nextflow/main.nf --table slides.csv --outdir OUT

include { WSISAMQUPATH_SEGMENT } from './modules/wsisamqupath/segment/main'

workflow {
    def folder = file(params.table, checkIfExists: true).parent
    def rows = channel
        .fromPath(params.table)
        .splitCsv(header: true, quote: '"')
        .map { row ->
            def slide = folder.resolve(row.slide)
            def name = row.name ?: slide.baseName.replaceFirst(/\.ome$/, '')
            [row + [id: name], file(slide, checkIfExists: true), folder.resolve(row.prompts)]
        }
    WSISAMQUPATH_SEGMENT(rows)
}
